using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data.Formats;

namespace Memopt.Trainer.Data;

/// <summary>One thing wrong with one row.</summary>
internal sealed class RowFault(string what, string? why = null)
    : Exception(Short(why is null ? what : $"{what}: {why}"))
{
    private const int Longest = 500;

    // What a row holds may be quoted, and is as long as it likes.
    private static string Short(string text) => text.Length > Longest ? $"{text[..Longest]} …" : text;
}

/// <summary>A pair of a preferred answer and another, which is for another kind of training.</summary>
internal sealed class PairFault() : Exception("preference pairs (chosen, rejected) are not trained on yet");

/// <summary>Turns a row's JSON text into tokens, by its shape. Safe for several threads.</summary>
/// <param name="model">Its tokenizer and template, asked for only by rows that need them.</param>
/// <param name="config">What is trained.</param>
/// <param name="columns">The source's columns by the names they are to have.</param>
/// <param name="remarks">Takes what is not used.</param>
/// <param name="stop">Ends the reading of a row.</param>
internal sealed class RowReader(
    ChatEncoder model,
    DataConfig config,
    IReadOnlyDictionary<string, string>? columns = null,
    Remarks? remarks = null,
    CancellationToken stop = default
)
{
    private static readonly JsonSerializerOptions relaxed = new() { Encoder = JsonText.Encoder };

    private readonly Remarks remarks = remarks ?? new();

    // What the source's columns are taken from; who takes the preferred answer leaves the other.
    private readonly string[] taken = columns is null
        ? []
        :
        [
            .. columns
                .Values.Select(column => column.Split('.')[0])
                .SelectMany(column => column == "chosen" ? new[] { column, "rejected" } : [column]),
        ];
    private static readonly string[] shapes =
    [
        "input_ids",
        "messages",
        "conversations",
        "chosen",
        "prompt",
        "instruction",
        "text",
    ];

    /// <summary>Whether an object has the keys of a row of some shape.</summary>
    public static bool IsRow(JsonObject json) => shapes.Any(json.ContainsKey);

    /// <summary>A row's tokens, null where its label says that its answer is a bad one; and the hash of its content,
    /// which is the same in every format and under every tokenizer.</summary>
    public (Row? Row, ulong Hash) Read(ReadOnlySpan<byte> text, int line)
    {
        var json = Parse(text);
        return (IsRejected(json) ? null : Read(json, line), Hash(json));
    }

    /// <summary>A pair of a preferred answer and another, each as a row: shown, and not trained on yet. Null when it is
    /// no pair.</summary>
    public (Row Chosen, Row Rejected)? Pair(ReadOnlySpan<byte> text, int line) =>
        Parse(text) is var json && IsPair(json) ? (Answer(json, "chosen", line), Answer(json, "rejected", line)) : null;

    private JsonObject Parse(ReadOnlySpan<byte> text)
    {
        try
        {
            var json = RowJson.Parse(text) as JsonObject ?? throw new RowFault("not a JSON object");
            return columns is null ? json : Mapped(json, columns);
        }
        catch (JsonException error)
        {
            throw new RowFault("not valid JSON", error.Message.Split(" LineNumber")[0]);
        }
    }

    private Row Read(JsonObject json, int line)
    {
        if (Has("input_ids"))
            return Tokens(json, line);
        if (Has("messages"))
            return Chat(Messages(Unquoted(json["messages"]), "messages"), json, line, ["messages"]);
        if (Has("conversations"))
            return Chat(Conversation(json), json, line, ["conversations"]);
        if (IsPair(json))
            throw new PairFault();
        if (Has("prompt") && Has("completion"))
            return Completion(json, line);
        if (Has("instruction") && Has("output"))
            return Instruction(json, line);
        if (Has("text") && json["label"]?.GetValueKind() is JsonValueKind.String or JsonValueKind.Number)
            return Labelled(json, line);
        if (Has("text"))
            return Plain("", Text(json, "text"), json, line, ["text"]);
        throw new RowFault(
            "a row needs messages, conversations, prompt and completion, instruction and output, text, or input_ids",
            $"{Keys(json)}; columns of other names are named in the source: \"columns\": {{\"prompt\": \"…\", "
                + $"\"completion\": \"…\"}}"
        );

        bool Has(string key) => json[key] is not null;
    }

    private static bool IsPair(JsonObject json) =>
        json["chosen"] is not null
        && json["rejected"] is not null
        && json["input_ids"] is null
        && json["messages"] is null
        && json["conversations"] is null;

    /// <summary>
    /// Whether a row is an answer that people rejected (unpaired preferences); a table has the word. The label of a
    /// bare text is its class.
    /// </summary>
    private static bool IsRejected(JsonObject json) =>
        shapes.Any(shape => shape is not ("input_ids" or "text") && json[shape] is not null)
        && KnownKeys.Opinions.Any(key => Opinion(json, key) == false);

    private static bool? Opinion(JsonObject json, string key) =>
        json[key]?.GetValueKind() switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            JsonValueKind.String when bool.TryParse(Text(json, key), out var good) => good,
            JsonValueKind.String when Text(json, key).Length == 0 => null,
            null => null,
            _ => key == "label"
                ? null
                : throw new RowFault($"{key} is neither true nor false", json[key]!.ToJsonString()),
        };

    /// <summary>Refuses what of a row has a meaning that its shape does not read.</summary>
    private void Check(JsonObject json, IEnumerable<string> reads) =>
        KnownKeys.Check(
            json,
            [
                .. reads,
                .. taken,
                .. KnownKeys.Opinions.Where(key => json.ContainsKey(key) && Opinion(json, key) is not null),
            ],
            remarks
        );

    private static string Keys(JsonObject json) =>
        json.Count == 0
            ? "it has no keys"
            : "it has "
                + string.Join(", ", json.Take(8).Select(pair => pair.Value is null ? $"{pair.Key} (null)" : pair.Key));

    /// <summary>The row with its columns under the names they are to have; a name with dots leads into an
    /// object.</summary>
    private static JsonObject Mapped(JsonObject json, IReadOnlyDictionary<string, string> columns)
    {
        var values = columns.Select(pair => (pair.Key, Value: Find(json, pair.Value))).ToList();
        foreach (var column in columns.Values)
            json.Remove(column);
        foreach (var (name, value) in values)
            json[name] = value?.DeepClone();
        return json;
    }

    private static JsonNode? Find(JsonObject json, string column)
    {
        if (json.TryGetPropertyValue(column, out var value))
            return value;
        JsonNode? node = json;
        foreach (var part in column.Split('.'))
            node =
                node is JsonObject inner && inner.TryGetPropertyValue(part, out var next)
                    ? next
                    : throw new RowFault($"there is no column \"{column}\"", Keys(json));
        return node;
    }

    private static ulong Hash(JsonObject json)
    {
        using var text = new MemoryStream();
        using (var writer = new Utf8JsonWriter(text, JsonText.Plain))
            json.WriteTo(writer);
        return System.Buffers.Binary.BinaryPrimitives.ReadUInt64LittleEndian(
            SHA256.HashData(text.GetBuffer().AsSpan(0, (int)text.Length))
        );
    }

    /// <summary>A list that a table, which has only texts, holds as JSON.</summary>
    private static JsonNode? Unquoted(JsonNode? node)
    {
        if (
            node is not JsonValue value
            || !value.TryGetValue<string>(out var text)
            || !text.AsSpan().TrimStart().StartsWith("[")
        )
            return node;
        try
        {
            return RowJson.Parse(text);
        }
        catch (JsonException)
        {
            return node;
        }
    }

    /// <summary>ShareGPT's turns as messages.</summary>
    private static List<JsonObject> Conversation(JsonObject json)
    {
        if (Unquoted(json["conversations"]) is not JsonArray { Count: > 0 } turns)
            throw new RowFault("conversations is not a list with a turn in it");
        var messages = new JsonArray();
        foreach (var turn in turns)
        {
            if (turn is not JsonObject said)
                throw new RowFault($"turn {messages.Count + 1} is not an object");
            var (who, what) = said.ContainsKey("from") ? ("from", "value") : ("role", "content");
            var message = (JsonObject)said.DeepClone();
            foreach (var key in (string[])["from", "value"])
                message.Remove(key);
            var role = said[who] is null ? "" : Text(said, who);
            message["role"] = role.ToLowerInvariant() switch
            {
                "human" or "user" => "user",
                "gpt" or "assistant" or "model" or "chatgpt" or "function_call" => "assistant",
                "system" => "system",
                "tool" or "observation" or "function_response" => "tool",
                _ when who == "role" => role,
                _ => throw new RowFault(
                    $"turn {messages.Count + 1} is from \"{role}\"",
                    "known are human, gpt, system, tool, function_call and observation"
                ),
            };
            if (role == "function_call" && Calls(Text(said, what)) is { } calls)
                (message["content"], message["tool_calls"]) = (null, calls);
            else if (who == "from")
                message["content"] = Text(said, what);
            messages.Add(message);
        }
        return Messages(messages, "conversations");
    }

    /// <summary>The calls of tools that a text is, {"name", "arguments"} or a list of these, as messages have them;
    /// null when it is none.</summary>
    private static JsonArray? Calls(string text)
    {
        try
        {
            var json = RowJson.Parse(text);
            var calls = json is JsonArray list ? [.. list] : new[] { json };
            return calls.Length > 0 && calls.All(call => call is JsonObject named && named.ContainsKey("name"))
                ? new([
                    .. calls.Select(call => new JsonObject { ["type"] = "function", ["function"] = call!.DeepClone() }),
                ])
                : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    /// <summary>A prompt and what completes it: texts, or lists of messages, which are one chat whose prompt carries no
    /// loss.</summary>
    private Row Completion(JsonObject json, int line) =>
        (Turns(json["prompt"]), Turns(json["completion"])) switch
        {
            (null, null) => Plain(Text(json, "prompt"), Text(json, "completion"), json, line, ["prompt", "completion"]),
            ({ } prompt, { } completion) => Chat(
                Messages(new JsonArray([.. prompt.Concat(completion).Select(turn => turn?.DeepClone())]), "prompt"),
                json,
                line,
                ["prompt", "completion"],
                prompt.Count
            ),
            var (prompt, _) => throw new RowFault(
                $"{(prompt is null ? "completion" : "prompt")} is a list of messages and "
                    + $"{(prompt is null ? "prompt" : "completion")} is none",
                "both are texts or both are lists"
            ),
        };

    /// <summary>A list of messages; a text is one only if it reads as nothing else.</summary>
    private static JsonArray? Turns(JsonNode? node) =>
        Unquoted(node) is JsonArray turns
        && (
            node is JsonArray
            || (turns.Count > 0 && turns.All(turn => turn is JsonObject said && said.ContainsKey("role")))
        )
            ? turns
            : null;

    /// <summary>Alpaca's rows.</summary>
    private Row Instruction(JsonObject json, int line)
    {
        var (instruction, input) = (Text(json, "instruction"), json["input"] is null ? "" : Text(json, "input"));
        return Asked(
            instruction,
            input,
            Text(json, "output"),
            History(json),
            json,
            line,
            ["instruction", "input", "output", "history"]
        );
    }

    /// <summary>A text and its class, as classifiers are trained: the text is asked and the label answered.</summary>
    private Row Labelled(JsonObject json, int line)
    {
        var label =
            json["label"]!.GetValueKind() == JsonValueKind.Number ? json["label"]!.ToJsonString() : Text(json, "label");
        if (label.Length == 0)
            throw new RowFault("label is empty");
        remarks.Labelled();
        return Asked(Text(json, "text"), "", label, [], json, line, ["text", "label"]);
    }

    /// <summary>
    /// An instruction and its answer: a chat where the model has a template, else the prompt that Alpaca was trained
    /// with.
    /// </summary>
    private Row Asked(
        string instruction,
        string input,
        string output,
        List<JsonObject> history,
        JsonObject json,
        int line,
        string[] reads
    )
    {
        if (model.Template is not null)
            return Chat(
                [
                    .. history,
                    Message("user", input.Length > 0 ? $"{instruction}\n\n{input}" : instruction),
                    Message("assistant", output),
                ],
                json,
                line,
                reads
            );
        if (history.Count > 0)
            throw new RowFault("history needs a model with a chat template");
        return Plain(
            input.Length > 0
                ? "Below is an instruction that describes a task, paired with an input that provides further "
                    + "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
                    + $"{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
                : "Below is an instruction that describes a task. Write a response that appropriately completes "
                    + $"the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n",
            output,
            json,
            line,
            reads
        );
    }

    /// <summary>
    /// What was said before an instruction, as LLaMA-Factory has it: a list of [instruction, answer].
    /// </summary>
    private static List<JsonObject> History(JsonObject json)
    {
        if (!KnownKeys.Given(json["history"]))
            return [];
        if (Unquoted(json["history"]) is not JsonArray turns)
            throw new RowFault("history is not a list of [instruction, answer]");
        return
        [
            .. turns.SelectMany(turn =>
                turn is JsonArray { Count: 2 } said
                    ? new[]
                    {
                        Message("user", Text(said[0], "a question of history")),
                        Message("assistant", Text(said[1], "an answer of history")),
                    }
                    : throw new RowFault("history is not a list of [instruction, answer]", $"it holds {Shown(turn)}")
            ),
        ];
    }

    private static readonly string[] pair = ["prompt", "chosen", "rejected"];

    /// <summary>One answer of a pair behind its prompt: texts, or lists of messages that may hold the prompt
    /// already.</summary>
    private Row Answer(JsonObject json, string key, int line)
    {
        var (prompt, answer) = (Unquoted(json["prompt"]), Unquoted(json[key]));
        if (answer is not JsonArray turns)
            return Plain(prompt is null ? "" : Text(json, "prompt"), Text(json, key), json, line, pair);
        var messages = turns.Select(turn => turn?.DeepClone()).ToList();
        if (prompt is JsonArray before)
            messages.InsertRange(0, before.Select(turn => turn?.DeepClone()));
        else if (messages.Count == 1 && prompt is not null)
            messages.Insert(0, Message("user", Text(json, "prompt")));
        return Chat(Messages(new JsonArray([.. messages]), key), json, line, pair);
    }

    private static JsonObject Message(string role, string content) => new() { ["role"] = role, ["content"] = content };

    private Row Tokens(JsonObject json, int line)
    {
        // What the tokens were made of may still be beside them.
        Check(
            json,
            [
                "input_ids",
                "labels",
                "attention_mask",
                "history",
                "messages",
                "conversations",
                "text",
                .. KnownKeys.Masks,
                .. KnownKeys.OfChats,
            ]
        );
        var ids = Integers(json, "input_ids")!;
        var labels = Integers(json, "labels") ?? ids;
        if (labels.Length != ids.Length)
            throw new RowFault("labels and input_ids differ in length", $"{labels.Length} and {ids.Length}");
        if (ids.FirstOrDefault(id => id < 0) is < 0 and var negative)
            throw new RowFault("a token id is negative", $"{negative}");
        if (labels.FirstOrDefault(label => label < 0 && label != Row.NoLoss) is < 0 and var odd)
            throw new RowFault("a label is negative and not -100", $"{odd}");
        if (Integers(json, "attention_mask") is { } mask)
        {
            if (mask.Length != ids.Length)
                throw new RowFault("attention_mask and input_ids differ in length", $"{mask.Length} and {ids.Length}");
            var kept = Array.FindLastIndex(mask, value => value != 0) + 1;
            if (mask.Take(kept).Contains(0))
                throw new RowFault("attention_mask has a 0 before its last 1", "only padding at the end is supported");
            (ids, labels) = (ids[..kept], labels[..kept]);
        }
        labels = [.. labels];
        foreach (var key in KnownKeys.Masks)
        {
            if (Integers(json, key) is not { } carries)
                continue;
            if (carries.Length < ids.Length)
                throw new RowFault($"{key} and input_ids differ in length", $"{carries.Length} and {ids.Length}");
            for (var t = 0; t < ids.Length; t++)
                labels[t] = carries[t] == 0 ? Row.NoLoss : labels[t];
        }
        return new(ids, labels, line);
    }

    private static int[]? Integers(JsonObject json, string key)
    {
        if (json[key] is not { } node)
            return null;
        if (Unquoted(node) is not JsonArray array)
            throw new RowFault($"{key} is not a list of integers");
        return
        [
            .. array.Select(item =>
                item is JsonValue value && value.TryGetValue<int>(out var id)
                    ? id
                    : throw new RowFault($"{key} is not a list of integers", $"it holds {Shown(item)}")
            ),
        ];
    }

    private static string Text(JsonObject json, string key) => Text(json[key], key);

    private static string Text(JsonNode? node, string name)
    {
        try
        {
            return node is JsonValue value && value.TryGetValue<string>(out var text)
                ? text
                : throw new RowFault($"{name} is not a string");
        }
        catch (InvalidOperationException error)
        {
            throw new RowFault($"{name} is not valid text", error.Message); // half of a surrogate pair as an escape
        }
    }

    /// <summary>The beginning of a value, for messages.</summary>
    private static string Shown(JsonNode? node) =>
        node?.ToJsonString() is { } text
            ? text.Length > 60
                ? $"{text[..60]}…"
                : text
            : "null";

    /// <summary>
    /// A prompt and what follows it, between the model's beginning and end tokens; a row that has them already gets no
    /// second ones, as in TRL and Unsloth.
    /// </summary>
    private Row Plain(string prompt, string completion, JsonObject json, int line, IEnumerable<string> reads)
    {
        Check(json, reads);
        var reader = model.Tokenizer;
        var spans = reader.Spans(prompt + completion);
        var prefix = spans.Count > 0 && reader.Prefix.LastOrDefault(-1) == spans[0].Id ? [] : reader.Prefix;
        var (ids, trained) = (new List<int>(prefix), new List<bool>(prefix.Select(_ => prompt.Length == 0)));
        foreach (var token in spans)
        {
            ids.Add(token.Id);
            trained.Add(token.End > prompt.Length);
        }
        if (reader.EndOfText is { } end && !(ids.Count > 0 && ids[^1] == end && trained[^1]))
        {
            ids.Add(end);
            trained.Add(true);
        }
        return Masked(ids, trained, line);
    }

    /// <param name="messages">The chat.</param>
    /// <param name="json">The row, for what is beside the messages.</param>
    /// <param name="line">Where it stands.</param>
    /// <param name="reads">The keys of the row that the messages came from.</param>
    /// <param name="from">The first message that may carry loss.</param>
    private Row Chat(List<JsonObject> messages, JsonObject json, int line, IEnumerable<string> reads, int from = 0)
    {
        Check(json, [.. reads, .. KnownKeys.OfChats]);
        var writer =
            model.Template?.Until(stop)
            ?? throw new UserFault(
                "The data has chats, but the model has no chat template.",
                next: "use a model with chat_template.jinja, or rows of prompt and completion"
            );
        var asked = messages.Select((message, at) => Trained(message, at + 1) && at >= from).ToList();
        if (SystemOf(json) is { } system && (string?)messages[0]["role"] is not ("system" or "developer"))
        {
            messages.Insert(0, Message("system", system));
            asked.Insert(0, false);
        }
        var variables = Variables(json);
        foreach (var (key, value) in messages.SelectMany(message => message).Concat(variables))
        {
            if (key is not ("role" or "content") && KnownKeys.Given(value) && !writer.Mentions(key))
                remarks.Unwritten(key);
        }
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
                (var bare, true) => new RowFault(
                    $"message {bare + 1} has no content and the model's chat template needs one",
                    "write \"content\": \"\" where a turn only calls tools"
                ),
                (var bare, false) => new RowFault(
                    $"message {bare + 1} only calls tools, and the model's chat template does not take that",
                    fault.Found
                ),
                null => new RowFault(fault.Message.TrimEnd('.'), fault.Found),
            };
        }
        if (
            config.TrainOn == TrainOn.Assistant
            && Enumerable.Range(0, messages.Count).FirstOrDefault(at => asked[at] && Unwritten(messages[at]), -1)
                is >= 0
                    and var empty
        )
            throw new RowFault(
                $"message {empty + 1} only calls tools, and the model's chat template does not write calls",
                "an empty answer would be trained"
            );
        var spans = model.Tokenizer.Spans(chat.Text);
        var trained = new bool[spans.Count];
        if (config.TrainOn == TrainOn.All)
            Array.Fill(trained, true);
        foreach (var turn in turns)
            Mark(spans, trained, turn.Start, turn.End, cutAfterTurn: turn.Whole);
        return Masked([.. spans.Select(token => token.Id)], trained, line);

        (RenderedChat, IReadOnlyList<AssistantTurn>) Written()
        {
            var chat = Rendered();
            return (
                chat,
                config.TrainOn == TrainOn.All ? [] : AssistantMask.Of(writer, chat, messages, variables, asked)
            );
        }

        RenderedChat Rendered()
        {
            try
            {
                var chat = writer.RenderMarked(messages, addGenerationPrompt: false, variables);
                if (!Unquote(messages, chat.Text))
                    return chat;
            }
            catch (UserFault) when (Unquote(messages, null))
            {
                // A template that goes through the arguments takes no text.
            }
            return writer.RenderMarked(messages, addGenerationPrompt: false, variables);
        }

        bool Unwritten(JsonObject message) =>
            (string?)message["role"] == "assistant"
            && !KnownKeys.Given(message["content"])
            && KnownKeys.Given(message["tool_calls"])
            && !writer.Mentions("tool_calls");

        // The first message without content, when the chat is taken once all have one; and whether its calls of tools
        // are written then.
        (int At, bool Called)? WithoutContent()
        {
            var bare = messages.FindIndex(message => message["content"] is null);
            if (bare < 0)
                return null;
            foreach (var message in messages)
                message["content"] ??= "";
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

    /// <summary>What a chat's row says beside its messages, as the template's variables.</summary>
    private static JsonObject Variables(JsonObject json)
    {
        var variables = new JsonObject();
        if (Objects(json, "tools") is { } tools)
            variables["tools"] = tools.DeepClone();
        if (Objects(json, "functions") is { Count: > 0 } functions)
        {
            if (variables["tools"] is JsonArray { Count: > 0 })
                throw new RowFault("tools and functions are both written", "keep tools");
            variables["tools"] = new JsonArray([
                .. functions.Select(function => new JsonObject
                {
                    ["type"] = "function",
                    ["function"] = function!.DeepClone(),
                }),
            ]);
        }
        if (Objects(json, "documents") is { } documents)
            variables["documents"] = documents.DeepClone();
        if (json["parallel_tool_calls"] is { } parallel)
            variables["parallel_tool_calls"] = parallel.DeepClone();
        if (!KnownKeys.Given(json["chat_template_kwargs"]))
            return variables;
        foreach (
            var (key, value) in Parsed(json["chat_template_kwargs"]) as JsonObject
                ?? throw new RowFault("chat_template_kwargs is not an object", Shown(json["chat_template_kwargs"]))
        )
            variables[key] = key is "tools" or "documents"
                ? throw new RowFault($"chat_template_kwargs has {key}", "write it beside the messages")
                : value?.DeepClone();
        return variables;
    }

    /// <summary>What the row says to the model before the chat, as LLaMA-Factory and ms-swift have it.</summary>
    private static string? SystemOf(JsonObject json)
    {
        var said = new[] { "system", "system_prompt" }
            .Where(key => json[key] is not null)
            .Select(key => Text(json, key))
            .Where(text => text.Length > 0)
            .Distinct()
            .ToList();
        return said.Count < 2
            ? said.FirstOrDefault()
            : throw new RowFault("system and system_prompt are both written and differ", "keep one");
    }

    /// <summary>
    /// A list of objects; in a table, or as TRL takes it, the JSON text of one. Null when there is none.
    /// </summary>
    private static JsonArray? Objects(JsonObject json, string key) =>
        Parsed(json[key]) switch
        {
            null => null,
            JsonArray list when list.All(item => item is JsonObject) => list,
            var other => throw new RowFault($"{key} is not a list of objects", $"it is {Shown(other)}"),
        };

    /// <summary>
    /// A value, or what a text holds as JSON; a text that is none stays one, and an empty one is nothing.
    /// </summary>
    private static JsonNode? Parsed(JsonNode? node)
    {
        if (node?.GetValueKind() != JsonValueKind.String)
            return node;
        try
        {
            return Text(node, "a value") is { } text && text.AsSpan().Trim().Length > 0 ? RowJson.Parse(text) : null;
        }
        catch (JsonException)
        {
            return node;
        }
    }

    /// <summary>
    /// Takes out of a message what says whether it carries loss; whether it does if the assistant says it.
    /// </summary>
    private bool Trained(JsonObject message, int number)
    {
        bool? trained = null;
        foreach (var key in KnownKeys.Trained)
        {
            if (!message.Remove(key, out var node) || node is null)
                continue;
            bool says = node.ToJsonString() switch
            {
                "true" or "1" or "1.0" => true,
                "false" or "0" or "0.0" => false,
                var other => throw new RowFault(
                    $"\"{key}\" of message {number} is {Shown(node)}",
                    "a turn carries loss or none: 1 or 0, true or false"
                ),
            };
            if (trained is { } before && before != says)
                throw new RowFault(
                    $"message {number} is to carry loss and not to",
                    string.Join(", ", KnownKeys.Trained) + ": keep one"
                );
            trained = says;
        }
        if (trained == true && config.TrainOn != TrainOn.All && (string?)message["role"] != "assistant")
            throw new RowFault(
                $"message {number} is to carry loss and is not the assistant's",
                "only the assistant's turns do; data.trainOn = all trains every token"
            );
        if (trained == false && config.TrainOn == TrainOn.All)
            throw new RowFault(
                $"message {number} is to carry no loss, and data.trainOn = all trains every token",
                "set data.trainOn = assistant"
            );
        return trained != false;
    }

    /// <summary>Marks the tokens of a turn, with its end-of-turn token and without what the template prints after
    /// that.</summary>
    private void Mark(IReadOnlyList<TokenSpan> spans, bool[] trained, int start, int end, bool cutAfterTurn)
    {
        // The spans are in order: the first that ends behind the start is looked for by halves, as a chat may have many
        // turns.
        var (first, behind) = (0, spans.Count);
        while (first < behind)
        {
            var middle = (first + behind) / 2;
            if (spans[middle].End <= start)
                first = middle + 1;
            else
                behind = middle;
        }
        var last = first - 1;
        while (last + 1 < spans.Count && spans[last + 1].Start < end)
            last++;
        if (last < first)
            return;
        var turnEnd = last;
        while (turnEnd >= first && !model.EndOfTurn.Contains(spans[turnEnd].Id))
            turnEnd = cutAfterTurn ? turnEnd - 1 : -1;
        if (turnEnd >= first)
            last = turnEnd;
        else if (last + 1 < spans.Count && model.EndOfTurn.Contains(spans[last + 1].Id))
            last++;
        Array.Fill(trained, true, first, last - first + 1);
    }

    private static List<JsonObject> Messages(JsonNode? node, string key)
    {
        if (node is not JsonArray { Count: > 0 } array)
            throw new RowFault($"{key} is not a list with a message in it");
        var messages = new List<JsonObject>();
        foreach (var item in array)
        {
            var at = messages.Count + 1;
            if (item is not JsonObject source)
                throw new RowFault($"message {at} is not an object");
            var message = (JsonObject)source.DeepClone();
            if (message["role"] is null || Text(message, "role").Length == 0)
                throw new RowFault($"message {at} has no role");
            KnownKeys.Check(message, at);
            ToolCalls(message, at);
            messages.Add(message);
            // Templates tell by a content that is none that a turn only calls tools (DeepSeek's).
            if (message["content"] is null && message["tool_calls"] is JsonArray { Count: > 0 })
                continue;
            message["content"] = message["content"] switch
            {
                null => "",
                JsonValue => Text(message, "content"),
                JsonArray parts => string.Concat(
                    parts.Select(part =>
                        part is JsonObject entry && Text(entry["type"], "the type of a part") == "text"
                            ? Text(entry, "text")
                            : throw new RowFault($"message {at} has content that is not text")
                    )
                ),
                _ => throw new RowFault($"the content of message {at} is not text"),
            };
        }
        return messages;
    }

    /// <summary>
    /// A message's calls of tools as a list of objects, also of what OpenAI's functions were before tools and of a
    /// table's text.
    /// </summary>
    private static void ToolCalls(JsonObject message, int number)
    {
        if (
            Parsed(message["tool_calls"]) is var calls
            && KnownKeys.Given(calls)
            && !(calls is JsonArray list && list.All(call => call is JsonObject))
        )
            throw new RowFault($"tool_calls of message {number} is not a list of objects", $"it is {Shown(calls)}");
        if (message.ContainsKey("tool_calls") && calls?.Parent is null)
            message["tool_calls"] = calls;
        if ((string?)message["role"] == "function")
            message["role"] = "tool";
        if (!message.Remove("function_call", out var old) || !KnownKeys.Given(old))
            return;
        if (KnownKeys.Given(calls))
            throw new RowFault($"message {number} has tool_calls and function_call", "keep tool_calls");
        message["tool_calls"] =
            Calls(old!.GetValueKind() == JsonValueKind.String ? Text(old, "function_call") : old.ToJsonString())
            ?? throw new RowFault(
                $"function_call of message {number} is not an object with a name",
                $"it is {Shown(old)}"
            );
    }

    /// <summary>
    /// OpenAI's arguments of a call are the text of an object. A template that writes arguments as JSON would write
    /// that text in quotes: it is given the object.
    /// </summary>
    /// <param name="messages">Whose arguments are changed.</param>
    /// <param name="written">What the template makes of them as they are; null when it does not take them.</param>
    /// <returns>Whether any was changed.</returns>
    private static bool Unquote(List<JsonObject> messages, string? written)
    {
        var changed = false;
        foreach (
            var call in messages.SelectMany(message => message["tool_calls"] as JsonArray ?? []).OfType<JsonObject>()
        )
        {
            var function = call["function"] as JsonObject ?? call;
            if (
                function["arguments"] is not { } text
                || text.GetValueKind() != JsonValueKind.String
                || Parsed(text) is not JsonObject said
            )
                continue;
            if (written?.Contains(text.ToJsonString(relaxed), StringComparison.Ordinal) == false)
                continue;
            (function["arguments"], changed) = (said, true);
        }
        return changed;
    }

    private Row Masked(IReadOnlyList<int> ids, IReadOnlyList<bool> trained, int line) =>
        new(
            [.. ids],
            [.. ids.Select((id, index) => trained[index] || config.TrainOn == TrainOn.All ? id : Row.NoLoss)],
            line
        );
}
