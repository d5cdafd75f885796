using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>What <c>tokenizer_config.json</c> and <c>special_tokens_map.json</c> say: the named special tokens and the
/// chat template.</summary>
internal sealed record TokenizerConfig(IReadOnlyDictionary<string, string> SpecialTokens, JsonNode? ChatTemplate)
{
    public string? EndToken => SpecialTokens.GetValueOrDefault("eos_token");

    public static TokenizerConfig Read(string modelFolder)
    {
        var named = new Dictionary<string, string>();
        JsonNode? template = null;
        foreach (var name in (string[])[ModelLayout.SpecialTokens, ModelLayout.TokenizerConfig])
        {
            var file = Path.Combine(modelFolder, name);
            if (!File.Exists(file))
                continue;
            try
            {
                var json =
                    JsonNode.Parse(UntrustedFile.ReadAllText(file, UntrustedFile.Settings)) as JsonObject
                    ?? throw new JsonException("it is not an object");
                template = json["chat_template"] ?? template;
                foreach (var (key, value) in json)
                {
                    if (!key.EndsWith("_token", StringComparison.Ordinal))
                        continue;
                    var content = value is JsonObject token ? token["content"] : value;
                    if (content is JsonValue text && text.TryGetValue<string>(out var written))
                        named[key] = written;
                }
            }
            // A key that stands there twice is an ArgumentException, half a character an InvalidOperationException.
            catch (Exception error) when (error is JsonException or ArgumentException or InvalidOperationException)
            {
                throw new UserFault($"{file} is not valid JSON.", error.Message, inner: error);
            }
        }
        return new(named, template);
    }
}
