using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Core.Tests;

namespace Memopt.Text.Tests;

/// <summary>The template engine beside Jinja2 itself, by its recorded answers, and beside @huggingface/jinja, which is
/// asked. Where the two differ Jinja2 is followed: templates are written for it, and models were trained on its text.
/// They differ in how True, None, lists, dicts and floats are printed, in what a missing name may do, in most filters
/// with arguments, in strip() of given characters, title(), format(), trim of None, strftime and slices; the count
/// below keeps watch on how much both agree.
/// </summary>
public sealed class JinjaTests
{
    private static readonly string Golden = Path.Combine(Repository.Root, "tests/Text.Tests/Golden/jinja");

    [Fact]
    public void Jinja_feature_cases_render_as_in_Jinja2()
    {
        var golden = Read("cases.golden.json");
        var wrong = new List<string>();
        foreach (var entry in golden["cases"]!.AsArray())
        {
            var template = (string)entry!["template"]!;
            var text = Render(template, golden["context"]!.AsObject());
            if (text != (string?)entry["text"])
                wrong.Add(
                    $"{template}\n  expected {entry["text"] ?? $"({entry["error"]})"}\n  actual   {text ?? "(refused)"}"
                );
        }
        Assert.True(wrong.Count == 0, $"{wrong.Count} differ:\n{string.Join('\n', wrong)}");
    }

    [Fact]
    public void Real_templates_render_every_chat_as_Jinja2_and_the_JavaScript_engine()
    {
        var chats = Read("conversations.json").AsArray();
        var answers = Read("conversations.golden.json").AsObject();
        var templates = answers.ToDictionary(entry => entry.Key, entry => Template(entry.Key));
        var input = new JsonArray([
            .. templates.Values.SelectMany(template =>
                chats.Select(chat =>
                    (JsonNode)new JsonObject { ["template"] = template, ["variables"] = Variables(chat!) }
                )
            ),
        ]);
        var oracle = Oracle.Ask("templates.mjs", input.ToJsonString()).AsArray();
        var (wrong, at) = (new List<string>(), 0);
        foreach (var (name, template) in templates)
        {
            var agree = 0;
            for (var i = 0; i < chats.Count; i++, at++)
            {
                var text = Render(template, Variables(chats[i]!));
                var hash = text is null
                    ? null
                    : Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)))[..16];
                if (hash != (string?)answers[name]![i])
                    wrong.Add($"{name}, chat {i}: {text ?? "refused"}");
                if (text is not null && oracle[at] is JsonValue other && (string)other! == text)
                    agree++;
            }
            if (agree < 40)
                wrong.Add($"{name}: only {agree} chats are as the oracle renders them");
        }
        Assert.True(wrong.Count == 0, $"{wrong.Count} differ:\n{string.Join('\n', wrong.Take(5))}");
    }

    /// <summary>Whatever a template is, it gives a text or a fault; any other exception would pass here and
    /// fail.</summary>
    [Fact]
    public void Damaged_templates_are_rendered_or_refused()
    {
        var golden = Read("cases.golden.json");
        var cases = golden["cases"]!.AsArray().Select(entry => (string)entry!["template"]!).ToList();
        var random = new Random(5);
        string[] parts =
        [
            "{{",
            "}}",
            "{%",
            "%}",
            "|",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "'",
            ".",
            ",",
            ":",
            "-",
            "*",
            "**",
            " if ",
            " else ",
            " for ",
            " in ",
            " is ",
            " not ",
            "none",
            "1",
            "''",
            "loop",
            "x",
            "~",
            "=",
            "messages",
            "rows",
            "nested",
            "𝒳",
            "\uD800",
            "\\",
            "{#",
            "%",
        ];
        for (var i = 0; i < 4000; i++)
        {
            var template = cases[random.Next(cases.Count)];
            for (var changes = random.Next(1, 4); changes > 0; changes--)
            {
                var (at, length) = (random.Next(template.Length + 1), random.Next(0, 4));
                template =
                    template[..at]
                    + (random.Next(3) > 0 ? parts[random.Next(parts.Length)] : "")
                    + template[Math.Min(template.Length, at + length)..];
            }
            Render(template, golden["context"]!.AsObject());
        }
    }

    private static string? Render(string template, JsonObject variables)
    {
        var given = (JsonObject)variables.DeepClone();
        var messages = given["messages"]!.AsArray().Select(message => (JsonObject)message!.DeepClone()).ToList();
        var prompt = (bool)given["add_generation_prompt"]!;
        given.Remove("messages");
        given.Remove("add_generation_prompt");
        try
        {
            return ChatTemplate.Parse(template, clock: new FixedClock()).Render(messages, prompt, given);
        }
        catch (UserFault)
        {
            return null;
        }
    }

    private static JsonObject Variables(JsonNode chat)
    {
        var variables = (JsonObject)chat.DeepClone();
        (variables["bos_token"], variables["eos_token"]) = ("<s>", "</s>");
        return variables;
    }

    private static string Template(string name)
    {
        var kept = Path.Combine(Golden, "templates", $"{name}.jinja");
        return File.Exists(kept)
            ? File.ReadAllText(kept)
            : (string)
                JsonNode.Parse(File.ReadAllText(Path.Combine(Oracle.Package(name), "tokenizer_config.json")))![
                    "chat_template"
                ]!;
    }

    private static JsonNode Read(string file) => JsonNode.Parse(File.ReadAllText(Path.Combine(Golden, file)))!;
}
