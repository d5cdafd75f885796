using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Trainer.Data.Formats;

namespace Memopt.Trainer.Data;

/// <summary>One thing wrong with one row.</summary>
internal sealed class RowFault(string what, string? why = null) : Exception(why is null ? what : $"{what}: {why}");

/// <summary>A pair of a preferred answer and another, which is for another kind of training.</summary>
internal sealed class PairFault() : Exception("preference pairs (chosen, rejected) are not trained on yet");

/// <summary>Turns a row's JSON text into tokens, by its shape. Safe for several threads.</summary>
/// <param name="model">Its tokenizer and template, asked for only by rows that need them.</param>
/// <param name="config">What is trained.</param>
/// <param name="columns">The source's columns by the names they are to have.</param>
/// <param name="stop">Ends the reading of a row.</param>
internal sealed class RowReader(ModelText model, DataConfig config, IReadOnlyDictionary<string, string>? columns = null, CancellationToken stop = default)
{
    private static readonly string[] shapes = ["input_ids", "messages", "conversations", "chosen", "prompt", "instruction", "text"];

    /// <summary>Whether an object has the keys of a row of some shape.</summary>
    public static bool IsRow(JsonObject json) => shapes.Any(json.ContainsKey);

    /// <summary>A row's tokens, null where its label says that its answer is a bad one; and the hash of its content, which is the same in every format and under every tokenizer.</summary>
    public (Row? Row, ulong Hash) Read(ReadOnlySpan<byte> text, int line)
    {
        var json = Parse(text);
        return (IsRejected(json) ? null : Read(json, line), Hash(json));
    }

    /// <summary>A pair of a preferred answer and another, each as a row: shown, and not trained on yet. Null when it is no pair.</summary>
    public (Row Chosen, Row Rejected)? Pair(ReadOnlySpan<byte> text, int line) =>
        Parse(text) is var json && IsPair(json) ? (Answer(json, "chosen", line), Answer(json, "rejected", line)) : null;

    private JsonObject Parse(ReadOnlySpan<byte> text)
    {
        try
        {
            var json = JsonNode.Parse(text) as JsonObject ?? throw new RowFault("not a JSON object");
            _ = json.Count;   // keys that come twice show here
            return columns is null ? json : Mapped(json, columns);
        }
        catch (Exception error) when (error is JsonException or ArgumentException)
        {
            throw new RowFault("not valid JSON", error.Message.Split(" LineNumber")[0]);
        }
    }

    private Row Read(JsonObject json, int line)
    {
        if (Has("input_ids")) return Tokens(json, line);
        if (Has("messages")) return Chat(Messages(Unquoted(json["messages"]), "messages"), json, line);
        if (Has("conversations")) return Chat(Conversation(json), json, line);
        if (IsPair(json)) throw new PairFault();
        if (Has("prompt") && Has("completion")) return Completion(json, line);
        if (Has("instruction") && Has("output")) return Instruction(json, line);
        if (Has("text")) return Plain("", Text(json, "text"), line);
        throw new RowFault("a row needs messages, conversations, prompt and completion, instruction and output, text, or input_ids",
            $"{Keys(json)}; columns of other names are named in the source: \"columns\": {{\"prompt\": \"…\", \"completion\": \"…\"}}");

        bool Has(string key) => json[key] is not null;
    }

    private static bool IsPair(JsonObject json) => json["chosen"] is not null && json["rejected"] is not null && json["input_ids"] is null && json["messages"] is null && json["conversations"] is null;

    /// <summary>Whether a row is an answer that people rejected (unpaired preferences, as TRL has them); a table has the word.</summary>
    private static bool IsRejected(JsonObject json) => json.ContainsKey("prompt") && json.ContainsKey("completion") && json["label"] is JsonValue label
        && (label.GetValueKind() == JsonValueKind.False || label.GetValueKind() == JsonValueKind.String && bool.TryParse(Text(json, "label"), out var good) && !good);

    private static string Keys(JsonObject json) => json.Count == 0 ? "it has no keys" : $"it has {string.Join(", ", json.Select(pair => pair.Value is null ? $"{pair.Key} (null)" : pair.Key).Take(8))}";

    /// <summary>The row with its columns under the names they are to have; a name with dots leads into an object.</summary>
    private static JsonObject Mapped(JsonObject json, IReadOnlyDictionary<string, string> columns)
    {
        var values = columns.Select(pair => (pair.Key, Value: Find(json, pair.Value))).ToList();
        foreach (var column in columns.Values) json.Remove(column);
        foreach (var (name, value) in values) json[name] = value?.DeepClone();
        return json;
    }

    private static JsonNode? Find(JsonObject json, string column)
    {
        if (json.TryGetPropertyValue(column, out var value)) return value;
        JsonNode? node = json;
        foreach (var part in column.Split('.'))
            node = node is JsonObject inner && inner.TryGetPropertyValue(part, out var next) ? next : throw new RowFault($"there is no column \"{column}\"", Keys(json));
        return node;
    }

    private static ulong Hash(JsonObject json)
    {
        using var text = new MemoryStream();
        using (var writer = new Utf8JsonWriter(text, JsonText.Plain)) json.WriteTo(writer);
        return System.Buffers.Binary.BinaryPrimitives.ReadUInt64LittleEndian(SHA256.HashData(text.GetBuffer().AsSpan(0, (int)text.Length)));
    }

    /// <summary>A list that a table, which has only texts, holds as JSON.</summary>
    private static JsonNode? Unquoted(JsonNode? node)
    {
        if (node is not JsonValue value || !value.TryGetValue<string>(out var text) || !text.AsSpan().TrimStart().StartsWith("[")) return node;
        try
        {
            return JsonNode.Parse(text);
        }
        catch (JsonException)
        {
            return node;
        }
    }

    /// <summary>ShareGPT's turns as messages.</summary>
    private static List<JsonObject> Conversation(JsonObject json)
    {
        if (Unquoted(json["conversations"]) is not JsonArray { Count: > 0 } turns) throw new RowFault("conversations is not a list with a turn in it");
        var messages = new JsonArray();
        if (json["system"] is JsonValue && Text(json, "system") is { Length: > 0 } system) messages.Add(new JsonObject { ["role"] = "system", ["content"] = system });
        foreach (var turn in turns)
        {
            if (turn is not JsonObject said) throw new RowFault($"turn {messages.Count + 1} is not an object");
            var (who, what) = said.ContainsKey("from") ? ("from", "value") : ("role", "content");
            var message = who == "from" ? new() : (JsonObject)said.DeepClone();
            var role = said[who] is null ? "" : Text(said, who);
            message["role"] = role.ToLowerInvariant() switch
            {
                "human" or "user" => "user",
                "gpt" or "assistant" or "model" or "chatgpt" or "function_call" => "assistant",
                "system" => "system",
                "tool" or "observation" or "function_response" => "tool",
                _ when who == "role" => role,
                _ => throw new RowFault($"turn {messages.Count + 1} is from \"{role}\"", "known are human, gpt, system, tool, function_call and observation"),
            };
            if (role == "function_call" && Calls(Text(said, what)) is { } calls) (message["content"], message["tool_calls"]) = (null, calls);
            else if (who == "from") message["content"] = Text(said, what);
            messages.Add(message);
        }
        return Messages(messages, "conversations");
    }

    /// <summary>The calls of tools that a text is, {"name", "arguments"} or a list of these, as messages have them; null when it is none.</summary>
    private static JsonArray? Calls(string text)
    {
        try
        {
            var json = JsonNode.Parse(text);
            var calls = json is JsonArray list ? [.. list] : new[] { json };
            return calls.Length > 0 && calls.All(call => call is JsonObject named && named.ContainsKey("name"))
                ? new([.. calls.Select(call => new JsonObject { ["type"] = "function", ["function"] = call!.DeepClone() })]) : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    /// <summary>A prompt and what completes it: texts, or lists of messages, which are one chat whose prompt carries no loss.</summary>
    private Row Completion(JsonObject json, int line) => (Turns(json["prompt"]), Turns(json["completion"])) switch
    {
        (null, null) => Plain(Text(json, "prompt"), Text(json, "completion"), line),
        ({ } prompt, { } completion) => Chat(Messages(new JsonArray([.. prompt.Concat(completion).Select(turn => turn?.DeepClone())]), "prompt"), json, line, prompt.Count),
        var (prompt, _) => throw new RowFault($"{(prompt is null ? "completion" : "prompt")} is a list of messages and {(prompt is null ? "prompt" : "completion")} is none", "both are texts or both are lists"),
    };

    /// <summary>A list of messages; a text is one only if it reads as nothing else.</summary>
    private static JsonArray? Turns(JsonNode? node) =>
        Unquoted(node) is JsonArray turns && (node is JsonArray || (turns.Count > 0 && turns.All(turn => turn is JsonObject said && said.ContainsKey("role")))) ? turns : null;

    /// <summary>Alpaca's rows: a chat where the model has a template, else the prompt that Alpaca was trained with.</summary>
    private Row Instruction(JsonObject json, int line)
    {
        var (instruction, output) = (Text(json, "instruction"), Text(json, "output"));
        var input = json["input"] is null ? "" : Text(json, "input");
        var system = json["system"] is null ? "" : Text(json, "system");
        if (model.Template is null)
        {
            return Plain(input.Length > 0
                ? $"Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
                : $"Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n", output, line);
        }
        var messages = new List<JsonObject>();
        if (system.Length > 0) messages.Add(Message("system", system));
        messages.Add(Message("user", input.Length > 0 ? $"{instruction}\n\n{input}" : instruction));
        messages.Add(Message("assistant", output));
        return Chat(messages, json, line);
    }

    /// <summary>One answer of a pair behind its prompt: texts, or lists of messages that may hold the prompt already.</summary>
    private Row Answer(JsonObject json, string key, int line)
    {
        var (prompt, answer) = (Unquoted(json["prompt"]), Unquoted(json[key]));
        if (answer is not JsonArray turns) return Plain(prompt is null ? "" : Text(json, "prompt"), Text(json, key), line);
        var messages = turns.Select(turn => turn?.DeepClone()).ToList();
        if (prompt is JsonArray before) messages.InsertRange(0, before.Select(turn => turn?.DeepClone()));
        else if (messages.Count == 1 && prompt is not null) messages.Insert(0, Message("user", Text(json, "prompt")));
        return Chat(Messages(new JsonArray([.. messages]), key), json, line);
    }

    private static JsonObject Message(string role, string content) => new() { ["role"] = role, ["content"] = content };

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
        if (json[key] is not { } node) return null;
        if (Unquoted(node) is not JsonArray array) throw new RowFault($"{key} is not a list of integers");
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
        var reader = model.Tokenizer;
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

    /// <param name="messages">The chat.</param>
    /// <param name="json">The row, for its tools.</param>
    /// <param name="line">Where it stands.</param>
    /// <param name="from">The first message that may carry loss.</param>
    private Row Chat(List<JsonObject> messages, JsonObject json, int line, int from = 0)
    {
        var writer = model.Template?.Until(stop) ?? throw new UserFault("The data has chats, but the model has no chat template.", next: "use a model with chat_template.jinja, or rows of prompt and completion");
        var variables = new JsonObject();
        if (Unquoted(json["tools"]) is { } tools) variables["tools"] = tools.DeepClone();
        RenderedChat chat;
        IReadOnlyList<AssistantTurn> turns;
        try
        {
            (chat, turns) = Written();
        }
        catch (UserFault fault) when (!fault.OverBudget)
        {
            throw WithoutContent() switch
            {
                (var bare, true) => new RowFault($"message {bare + 1} has no content and the model's chat template needs one", "write \"content\": \"\" where a turn only calls tools"),
                (var bare, false) => new RowFault($"message {bare + 1} only calls tools, and the model's chat template does not take that", fault.Found),
                null => new RowFault(fault.Message.TrimEnd('.'), fault.Found),
            };
        }
        var spans = model.Tokenizer.Spans(chat.Text);
        var trained = new bool[spans.Count];
        if (config.TrainOn == TrainOn.All) Array.Fill(trained, true);
        foreach (var turn in turns) Mark(spans, trained, turn.Start, turn.End, cutAfterTurn: turn.Whole);
        return Masked([.. spans.Select(token => token.Id)], trained, line);

        (RenderedChat, IReadOnlyList<AssistantTurn>) Written()
        {
            var chat = writer.RenderMarked(messages, addGenerationPrompt: false, variables);
            return (chat, config.TrainOn == TrainOn.All ? [] : AssistantTurns.Of(writer, chat, messages, variables, from));
        }

        // The first message without content, when the chat is taken once all have one; and whether its calls of tools are written then.
        (int At, bool Called)? WithoutContent()
        {
            var bare = messages.FindIndex(message => message["content"] is null);
            if (bare < 0) return null;
            foreach (var message in messages) message["content"] ??= "";
            try
            {
                var (chat, _) = Written();
                messages[bare].Remove("tool_calls");
                return (bare, writer.Render(messages, addGenerationPrompt: false, variables) != chat.Text);
            }
            catch (UserFault fault) when (!fault.OverBudget)
            {
                return null;
            }
        }
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
        var turnEnd = last;
        while (turnEnd >= first && !model.EndOfTurn.Contains(spans[turnEnd].Id)) turnEnd = cutAfterTurn ? turnEnd - 1 : -1;
        if (turnEnd >= first) last = turnEnd;
        else if (last + 1 < spans.Count && model.EndOfTurn.Contains(spans[last + 1].Id)) last++;
        Array.Fill(trained, true, first, last - first + 1);
    }

    private static List<JsonObject> Messages(JsonNode? node, string key)
    {
        if (node is not JsonArray { Count: > 0 } array) throw new RowFault($"{key} is not a list with a message in it");
        var messages = new List<JsonObject>();
        foreach (var item in array)
        {
            var at = messages.Count + 1;
            if (item is not JsonObject source) throw new RowFault($"message {at} is not an object");
            var message = (JsonObject)source.DeepClone();
            if (message["role"] is null || Text(message, "role").Length == 0) throw new RowFault($"message {at} has no role");
            messages.Add(message);
            // Templates tell by a content that is none that a turn only calls tools (DeepSeek's).
            if (message["content"] is null && message["tool_calls"] is JsonArray { Count: > 0 }) continue;
            message["content"] = message["content"] switch
            {
                null => "",
                JsonValue => Text(message, "content"),
                JsonArray parts => string.Concat(parts.Select(part => part is JsonObject entry && (string?)entry["type"]! == "text" ? Text(entry, "text") : throw new RowFault($"message {at} has content that is not text"))),
                _ => throw new RowFault($"the content of message {at} is not text"),
            };
        }
        return messages;
    }

    private Row Masked(IReadOnlyList<int> ids, IReadOnlyList<bool> trained, int line) =>
        new([.. ids], [.. ids.Select((id, index) => trained[index] || config.TrainOn == TrainOn.All ? id : Row.NoLoss)], line);
}
