using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Memopt.Trainer.Data;

/// <summary>One sequence to train on; a label is the token itself, or -100 where there is no loss (not shifted).</summary>
/// <param name="Ids">The tokens.</param>
/// <param name="Labels">As many as tokens.</param>
/// <param name="Line">The row's line in its file, from 1.</param>
public sealed record Row(int[] Ids, int[] Labels, int Line)
{
    public const int NoLoss = -100;

    /// <summary>How many tokens are predicted with loss; the first has nothing before it.</summary>
    public int Trained => Labels.Skip(1).Count(label => label != NoLoss);
}

/// <summary>A JSON Lines file as tokens and labels.</summary>
/// <param name="Rows">In the file's order.</param>
/// <param name="Hash">SHA-256 of the file, in hexadecimal.</param>
/// <param name="Tokens">Tokens of all rows.</param>
/// <param name="Trained">Tokens that carry loss.</param>
/// <param name="Truncated">Rows that were cut at the longest length.</param>
public sealed record Dataset(IReadOnlyList<Row> Rows, string Hash, long Tokens, long Trained, int Truncated)
{
    private const int MostProblems = 20;

    /// <summary>Reads a file; the tokenizer and the template are asked for only by rows that need them.</summary>
    public static Dataset Load(string file, Func<Tokenizer> tokenizer, Func<ChatTemplate?> template, DataConfig config, IReadOnlySet<int> endOfTurn)
    {
        var reader = new RowReader(tokenizer, template, config, endOfTurn);
        var (lines, hash) = Read(file);
        var (rows, problems, truncated) = (new List<Row>(), new List<Problem>(), 0);
        foreach (var (text, line) in lines)
        {
            try
            {
                var row = reader.Read(text, line);
                if (row.Trained == 0) throw new RowFault("no token of this row carries loss", "it needs an assistant's turn, a completion, or labels other than -100 after the first");
                if (row.Ids.Length > config.MaxLength)
                {
                    truncated++;
                    row = new(row.Ids[..config.MaxLength], row.Labels[..config.MaxLength], line);
                    if (row.Trained == 0) throw new RowFault("all tokens that carry loss are cut off", $"the row is longer than data.maxLength = {config.MaxLength}");
                }
                rows.Add(row);
            }
            catch (RowFault fault)
            {
                problems.Add(new("data", fault.Message, file, line));
                if (problems.Count == MostProblems) break;
            }
        }
        if (problems.Count > 0)
        {
            var more = problems.Count == MostProblems ? $" (the first {MostProblems})" : "";
            throw new UserFault($"{problems.Count} {(problems.Count == 1 ? "row" : "rows")} of {file} cannot be trained on{more}.",
                found: string.Join('\n', problems.Select(problem => $"{problem.File}:{problem.Line}: {problem.Message}")),
                next: "mend or remove these rows")
            { Problems = problems };
        }
        if (rows.Count == 0) throw new UserFault($"{file} has no rows.", "an empty file", "write one JSON object a line: {\"messages\": […]}");
        return new(rows, hash, rows.Sum(row => (long)row.Ids.Length), rows.Sum(row => (long)row.Trained), truncated);
    }

    private static (List<(string Text, int Line)> Lines, string Hash) Read(string file)
    {
        byte[] bytes;
        try
        {
            bytes = File.ReadAllBytes(file);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new UserFault($"The data file {file} cannot be read.", error.Message, "check data.train and data.eval", error);
        }
        string text;
        try
        {
            text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes);
        }
        catch (DecoderFallbackException error)
        {
            throw new UserFault($"{file} is not UTF-8 text.", error.Message, inner: error);
        }
        var lines = text.TrimStart('\uFEFF').Split('\n').Select((line, index) => (line, index + 1)).Where(entry => !string.IsNullOrWhiteSpace(entry.line)).ToList();
        return (lines, Convert.ToHexStringLower(SHA256.HashData(bytes)));
    }
}

/// <summary>One thing wrong with one row.</summary>
internal sealed class RowFault(string what, string? why = null) : Exception(why is null ? what : $"{what}: {why}");

/// <summary>Turns a line into a row, by its shape.</summary>
internal sealed class RowReader(Func<Tokenizer> tokenizer, Func<ChatTemplate?> template, DataConfig config, IReadOnlySet<int> endOfTurn)
{
    private readonly Lazy<Tokenizer> tokenizer = new(tokenizer);
    private readonly Lazy<ChatTemplate?> template = new(template);

    public Row Read(string text, int line)
    {
        JsonObject json;
        try
        {
            json = JsonNode.Parse(text) as JsonObject ?? throw new RowFault("not a JSON object");
            _ = json.Count;   // keys that come twice show here
        }
        catch (Exception error) when (error is JsonException or ArgumentException)
        {
            throw new RowFault("not valid JSON", error.Message);
        }
        if (json.ContainsKey("input_ids")) return Tokens(json, line);
        if (json.ContainsKey("messages")) return Chat(json, line);
        if (json.ContainsKey("prompt") && json.ContainsKey("completion")) return Plain(Text(json, "prompt"), Text(json, "completion"), line);
        if (json.ContainsKey("text")) return Plain("", Text(json, "text"), line);
        throw new RowFault("a row needs messages, prompt and completion, text, or input_ids", json.Count == 0 ? "it has no keys" : $"it has {string.Join(", ", json.Select(pair => pair.Key).Take(8))}");
    }

    private static Row Tokens(JsonObject json, int line)
    {
        var ids = Integers(json, "input_ids")!;
        var labels = Integers(json, "labels") ?? ids;
        if (labels.Length != ids.Length) throw new RowFault("labels and input_ids differ in length", $"{labels.Length} and {ids.Length}");
        if (ids.FirstOrDefault(id => id < 0) is < 0 and var negative) throw new RowFault("a token id is negative", $"{negative}");
        if (labels.FirstOrDefault(label => label < 0 && label != Row.NoLoss) is < 0 and var odd) throw new RowFault("a label is negative and not -100", $"{odd}");
        if (Integers(json, "attention_mask") is { } mask)
        {
            if (mask.Length != ids.Length) throw new RowFault("attention_mask and input_ids differ in length", $"{mask.Length} and {ids.Length}");
            var kept = Array.FindLastIndex(mask, value => value != 0) + 1;
            if (mask.Take(kept).Contains(0)) throw new RowFault("attention_mask has a 0 before its last 1", "only padding at the end is supported");
            (ids, labels) = (ids[..kept], labels[..kept]);
        }
        return new(ids, [.. labels], line);
    }

    private static int[]? Integers(JsonObject json, string key)
    {
        if (json[key] is not { } node) return key == "input_ids" ? throw new RowFault("input_ids is null") : null;
        if (node is not JsonArray array) throw new RowFault($"{key} is not a list of integers");
        return [.. array.Select(item => item is JsonValue value && value.TryGetValue<int>(out var id) ? id : throw new RowFault($"{key} is not a list of integers", $"it holds {item?.ToJsonString() ?? "null"}"))];
    }

    private static string Text(JsonObject json, string key)
    {
        try
        {
            return json[key] is JsonValue value && value.TryGetValue<string>(out var text) ? text : throw new RowFault($"{key} is not a string");
        }
        catch (InvalidOperationException error)
        {
            throw new RowFault($"{key} is not valid text", error.Message);   // half of a surrogate pair as an escape
        }
    }

    private Row Plain(string prompt, string completion, int line)
    {
        var reader = tokenizer.Value;
        var (ids, trained) = (new List<int>(reader.Prefix), new List<bool>(reader.Prefix.Select(_ => prompt.Length == 0)));
        foreach (var token in reader.Spans(prompt + completion))
        {
            ids.Add(token.Id);
            trained.Add(token.End > prompt.Length);
        }
        if (reader.EndOfText is { } end)
        {
            ids.Add(end);
            trained.Add(true);
        }
        return Masked(ids, trained, line);
    }

    private Row Chat(JsonObject json, int line)
    {
        var messages = Messages(json["messages"]);
        var writer = template.Value ?? throw new UserFault("The data has chats, but the model has no chat template.", next: "use a model with chat_template.jinja, or rows of prompt and completion");
        var variables = new JsonObject();
        if (json["tools"] is { } tools) variables["tools"] = tools.DeepClone();
        RenderedChat chat;
        IReadOnlyList<AssistantTurn> turns;
        try
        {
            chat = writer.RenderMarked(messages, addGenerationPrompt: false, variables);
            turns = config.TrainOn == TrainOn.All ? [] : AssistantTurns.Of(writer, chat, messages, variables);
        }
        catch (UserFault fault)
        {
            throw new RowFault(fault.Message.TrimEnd('.'), fault.Found);
        }
        var spans = tokenizer.Value.Spans(chat.Text);
        var trained = new bool[spans.Count];
        if (config.TrainOn == TrainOn.All) Array.Fill(trained, true);
        foreach (var turn in turns) Mark(spans, trained, turn.Start, turn.End, cutAfterTurn: turn.Whole);
        return Masked([.. spans.Select(token => token.Id)], trained, line);
    }

    /// <summary>Marks the tokens of a turn, with its end-of-turn token and without what the template prints after that.</summary>
    private void Mark(IReadOnlyList<TokenSpan> spans, bool[] trained, int start, int end, bool cutAfterTurn)
    {
        var (first, last) = (spans.Count, -1);
        for (var i = 0; i < spans.Count; i++)
        {
            if (spans[i].End <= start || spans[i].Start >= end) continue;
            first = Math.Min(first, i);
            last = i;
        }
        if (last < 0) return;
        if (cutAfterTurn)
        {
            var turnEnd = last;
            while (turnEnd >= first && !endOfTurn.Contains(spans[turnEnd].Id)) turnEnd--;
            if (turnEnd >= first) last = turnEnd;
        }
        else if (!endOfTurn.Contains(spans[last].Id) && last + 1 < spans.Count && endOfTurn.Contains(spans[last + 1].Id))
        {
            last++;
        }
        Array.Fill(trained, true, first, last - first + 1);
    }

    private static List<JsonObject> Messages(JsonNode? node)
    {
        if (node is not JsonArray { Count: > 0 } array) throw new RowFault("messages is not a list with a message in it");
        var messages = new List<JsonObject>();
        foreach (var item in array)
        {
            var at = messages.Count + 1;
            if (item is not JsonObject source) throw new RowFault($"message {at} is not an object");
            var message = (JsonObject)source.DeepClone();
            if (message["role"] is null || Text(message, "role").Length == 0) throw new RowFault($"message {at} has no role");
            message["content"] = message["content"] switch
            {
                null => "",
                JsonValue => Text(message, "content"),
                JsonArray parts => string.Concat(parts.Select(part => part is JsonObject entry && (string?)entry["type"]! == "text" ? Text(entry, "text") : throw new RowFault($"message {at} has content that is not text"))),
                _ => throw new RowFault($"the content of message {at} is not text"),
            };
            messages.Add(message);
        }
        return messages;
    }

    private Row Masked(IReadOnlyList<int> ids, IReadOnlyList<bool> trained, int line) =>
        new([.. ids], [.. ids.Select((id, index) => trained[index] || config.TrainOn == TrainOn.All ? id : Row.NoLoss)], line);
}
