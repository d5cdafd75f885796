using System.Text.Json;

namespace Memopt.Text.Tokenizers;

/// <summary>The tokens that the model wants around a text.</summary>
internal sealed record PostProcessor(IReadOnlyList<int> Before, IReadOnlyList<int> After)
{
    public static PostProcessor Read(JsonElement? part)
    {
        if (part is not { } json)
            return new([], []);
        switch (json.Type())
        {
            case "ByteLevel":
                return new([], []); // it only moves offsets
            case "BertProcessing" or "RobertaProcessing":
                return new([Named(json, "cls")], [Named(json, "sep")]);
            case "TemplateProcessing":
                return Template(json);
            case "Sequence":
                return json.GetProperty("processors")
                    .EnumerateArray()
                    .Select(step => Read(step))
                    .Aggregate(
                        new PostProcessor([], []),
                        (inner, outer) => new([.. outer.Before, .. inner.Before], [.. inner.After, .. outer.After])
                    );
            default:
                throw Component.Unsupported($"the post-processor \"{json.Type()}\"", json.ToString());
        }
    }

    private const int MostTokens = 1_000; // Whisper has four

    private static int Named(JsonElement json, string key) => json.GetProperty(key)[1].GetInt32();

    private static PostProcessor Template(JsonElement json)
    {
        var (before, after, texts) = (new List<int>(), new List<int>(), 0);
        foreach (var entry in json.GetProperty("single").EnumerateArray())
        {
            if (entry.Part("Sequence") is not null)
                texts++;
            else
                (texts > 0 ? after : before).AddRange(
                    json.GetProperty("special_tokens")
                        .GetProperty(entry.GetProperty("SpecialToken").GetProperty("id").GetString()!)
                        .GetProperty("ids")
                        .EnumerateArray()
                        .Select(id => id.GetInt32())
                );
            if (before.Count + after.Count > MostTokens)
                throw Component.Unsupported($"more than {MostTokens} tokens around a text", null);
        }
        return texts == 1
            ? new(before, after)
            : throw Component.Unsupported(
                "a template that does not have the text once",
                json.GetProperty("single").ToString()
            );
    }
}
