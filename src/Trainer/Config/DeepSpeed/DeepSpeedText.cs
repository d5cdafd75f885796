using System.Text.Json;
using Memopt.Core;
using Memopt.Trainer.Config.Reading;

namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>The JSON of a DeepSpeed file. As for DeepSpeed, it has no comments and no key twice.</summary>
/// <param name="text">The file's text.</param>
/// <param name="problems">Gets what is wrong.</param>
internal sealed class DeepSpeedText(ConfigText text, ConfigProblems problems)
{
    /// <summary>Most values and names; a file of a public project has a hundred.</summary>
    private const int MostValues = 20_000;

    private const string NotJson = "MEMOPT0001",
        Unknown = "MEMOPT0002",
        WrongType = "MEMOPT0003";

    /// <summary>The root object; null when there is none, and a problem.</summary>
    public DeepSpeedNode? Read()
    {
        if (text.EndOfUtf8() is { } end)
        {
            problems.AddAt(end, new("", "is not UTF-8 text from here on", Code: NotJson));
            return null;
        }
        try
        {
            StrictJson.Check(text.Bytes, MostValues);
            using var document = JsonDocument.Parse(text.Bytes);
            var reader = new Utf8JsonReader(text.Bytes);
            reader.Read();
            if (reader.TokenType == JsonTokenType.StartObject)
            {
                var root = document.RootElement.Clone();
                return new("", "", 0, root, Children(ref reader, root, ""));
            }
            problems.AddAt(
                (int)reader.TokenStartIndex,
                new("", $"must be an object, found {JsonValues.Found(ref reader)}", Code: WrongType)
            );
        }
        catch (JsonException e)
        {
            var why = e.Message.Split(" LineNumber")[0];
            problems.AddAt(text.Offset(e), new("", $"not valid JSON: {why}", Code: NotJson));
        }
        return null;
    }

    /// <summary>The values of an object whose beginning the reader is at; the reader goes to its end.</summary>
    private List<DeepSpeedNode> Children(ref Utf8JsonReader reader, JsonElement owner, string path)
    {
        var (children, seen) = (new List<DeepSpeedNode>(), new HashSet<string>());
        foreach (var property in owner.EnumerateObject())
        {
            reader.Read();
            var (offset, name) = ((int)reader.TokenStartIndex, property.Name);
            var own = path.Length == 0 ? name : $"{path}.{name}";
            if (!seen.Add(name))
                problems.AddAt(offset, new(own, "is written twice", Code: Unknown));
            reader.Read();
            var inside = reader.TokenType == JsonTokenType.StartObject ? Children(ref reader, property.Value, own) : [];
            reader.Skip(); // a list; an object has been read
            children.Add(new(own, name, offset, property.Value, inside));
        }
        reader.Read(); // the end of the object
        return children;
    }
}
