using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data.Chats;
using Memopt.Trainer.Data.Formats;

namespace Memopt.Trainer.Data;

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
    /// <summary>A row as its shape reads it.</summary>
    /// <param name="Json">The row.</param>
    /// <param name="Line">Where it stands.</param>
    /// <param name="Reads">The keys that its shape reads.</param>
    private readonly record struct ShapedRow(JsonObject Json, int Line, params string[] Reads);

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

    private static readonly string[] pair = ["prompt", "chosen", "rejected"];

    private readonly Remarks remarks = remarks ?? new();
    private readonly RowColumns? columns = columns is null ? null : new(columns);

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
            return columns?.Rename(json) ?? json;
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
            return Chat(
                ChatMessages.Read(RowFields.Unquoted(json["messages"]), "messages"),
                new(json, line, "messages")
            );
        if (Has("conversations"))
            return Chat(ShareGptTurns.Read(json), new(json, line, "conversations"));
        if (IsPair(json))
            throw new PairFault();
        if (Has("prompt") && Has("completion"))
            return Completion(json, line);
        if (Has("instruction") && Has("output"))
            return Instruction(json, line);
        if (Has("text") && json["label"]?.GetValueKind() is JsonValueKind.String or JsonValueKind.Number)
            return Labelled(json, line);
        if (Has("text"))
            return Plain("", RowFields.Text(json, "text"), new(json, line, "text"));
        throw new RowFault(
            "a row needs messages, conversations, prompt and completion, instruction and output, text, or input_ids",
            $"{RowFields.Keys(json)}; columns of other names are named in the source: "
                + "\"columns\": {\"prompt\": \"…\", \"completion\": \"…\"}"
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
            JsonValueKind.String when bool.TryParse(RowFields.Text(json, key), out var good) => good,
            JsonValueKind.String when RowFields.Text(json, key).Length == 0 => null,
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
                .. columns?.Taken ?? [],
                .. KnownKeys.Opinions.Where(key => json.ContainsKey(key) && Opinion(json, key) is not null),
            ],
            remarks
        );

    private static ulong Hash(JsonObject json)
    {
        using var text = new MemoryStream();
        using (var writer = new Utf8JsonWriter(text, JsonText.Plain))
            json.WriteTo(writer);
        return BinaryPrimitives.ReadUInt64LittleEndian(SHA256.HashData(text.GetBuffer().AsSpan(0, (int)text.Length)));
    }

    private Row Tokens(JsonObject json, int line)
    {
        Check(json, TokenizedRow.Keys);
        return TokenizedRow.Read(json, line);
    }

    /// <summary>A prompt and what completes it: texts, or lists of messages, which are one chat whose prompt carries no
    /// loss.</summary>
    private Row Completion(JsonObject json, int line)
    {
        var row = new ShapedRow(json, line, "prompt", "completion");
        return (Turns(json["prompt"]), Turns(json["completion"])) switch
        {
            (null, null) => Plain(RowFields.Text(json, "prompt"), RowFields.Text(json, "completion"), row),
            ({ } prompt, { } completion) => Chat(
                ChatMessages.Read(
                    new JsonArray([.. prompt.Concat(completion).Select(turn => turn?.DeepClone())]),
                    "prompt"
                ),
                row,
                prompt.Count
            ),
            var (prompt, _) => throw new RowFault(
                $"{(prompt is null ? "completion" : "prompt")} is a list of messages and "
                    + $"{(prompt is null ? "prompt" : "completion")} is none",
                "both are texts or both are lists"
            ),
        };
    }

    /// <summary>A list of messages; a text is one only if it reads as nothing else.</summary>
    private static JsonArray? Turns(JsonNode? node) =>
        RowFields.Unquoted(node) is JsonArray turns
        && (
            node is JsonArray
            || (turns.Count > 0 && turns.All(turn => turn is JsonObject said && said.ContainsKey("role")))
        )
            ? turns
            : null;

    /// <summary>Alpaca's rows.</summary>
    private Row Instruction(JsonObject json, int line)
    {
        var (instruction, input) = (
            RowFields.Text(json, "instruction"),
            json["input"] is null ? "" : RowFields.Text(json, "input")
        );
        return Asked(
            new(instruction, input, RowFields.Text(json, "output"), History(json)),
            new(json, line, "instruction", "input", "output", "history")
        );
    }

    /// <summary>A text and its class, as classifiers are trained: the text is asked and the label answered.</summary>
    private Row Labelled(JsonObject json, int line)
    {
        var label =
            json["label"]!.GetValueKind() == JsonValueKind.Number
                ? json["label"]!.ToJsonString()
                : RowFields.Text(json, "label");
        if (label.Length == 0)
            throw new RowFault("label is empty");
        remarks.Labelled();
        return Asked(new(RowFields.Text(json, "text"), "", label, []), new(json, line, "text", "label"));
    }

    /// <summary>
    /// An instruction and its answer: a chat where the model has a template, else the prompt that Alpaca was trained
    /// with.
    /// </summary>
    private Row Asked(AlpacaTurn turn, ShapedRow row)
    {
        if (model.Template is not null)
            return Chat(turn.Messages, row);
        return turn.History.Count > 0
            ? throw new RowFault("history needs a model with a chat template")
            : Plain(turn.Prompt, turn.Output, row);
    }

    /// <summary>
    /// What was said before an instruction, as LLaMA-Factory has it: a list of [instruction, answer].
    /// </summary>
    private static List<JsonObject> History(JsonObject json)
    {
        if (!KnownKeys.Given(json["history"]))
            return [];
        if (RowFields.Unquoted(json["history"]) is not JsonArray turns)
            throw new RowFault("history is not a list of [instruction, answer]");
        return
        [
            .. turns.SelectMany(turn =>
                turn is JsonArray { Count: 2 } said
                    ? new[]
                    {
                        ChatMessages.Message("user", RowFields.Text(said[0], "a question of history")),
                        ChatMessages.Message("assistant", RowFields.Text(said[1], "an answer of history")),
                    }
                    : throw new RowFault(
                        "history is not a list of [instruction, answer]",
                        $"it holds {RowFields.Shown(turn)}"
                    )
            ),
        ];
    }

    /// <summary>One answer of a pair behind its prompt: texts, or lists of messages that may hold the prompt
    /// already.</summary>
    private Row Answer(JsonObject json, string key, int line)
    {
        var row = new ShapedRow(json, line, pair);
        var (prompt, answer) = (RowFields.Unquoted(json["prompt"]), RowFields.Unquoted(json[key]));
        if (answer is not JsonArray turns)
            return Plain(prompt is null ? "" : RowFields.Text(json, "prompt"), RowFields.Text(json, key), row);
        var messages = turns.Select(turn => turn?.DeepClone()).ToList();
        if (prompt is JsonArray before)
            messages.InsertRange(0, before.Select(turn => turn?.DeepClone()));
        else if (messages.Count == 1 && prompt is not null)
            messages.Insert(0, ChatMessages.Message("user", RowFields.Text(json, "prompt")));
        return Chat(ChatMessages.Read(new JsonArray([.. messages]), key), row);
    }

    /// <summary>
    /// A prompt and what follows it, between the model's beginning and end tokens; a row that has them already gets no
    /// second ones, as in TRL and Unsloth.
    /// </summary>
    private Row Plain(string prompt, string completion, ShapedRow row)
    {
        Check(row.Json, row.Reads);
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
        return Masked(ids, trained, row.Line);
    }

    /// <param name="messages">The chat.</param>
    /// <param name="row">The row, for what is beside the messages.</param>
    /// <param name="from">The first message that may carry loss.</param>
    private Row Chat(List<JsonObject> messages, ShapedRow row, int from = 0)
    {
        Check(row.Json, [.. row.Reads, .. KnownKeys.OfChats]);
        var template =
            model.Template?.Until(stop)
            ?? throw new UserFault(
                "The data has chats, but the model has no chat template.",
                next: "use a model with chat_template.jinja, or rows of prompt and completion"
            );
        var chat = new ChatRow(template, config.TrainOn, messages, row.Json, from);
        chat.NoteUnwritten(remarks);
        var (rendered, turns) = chat.Render();
        var spans = model.Tokenizer.Spans(rendered.Text);
        var loss = new LossMask(spans, model.EndOfTurn);
        foreach (var turn in turns)
            loss.Mark(turn);
        return Masked([.. spans.Select(token => token.Id)], loss.Trained, row.Line);
    }

    private Row Masked(IReadOnlyList<int> ids, IReadOnlyList<bool> trained, int line) =>
        new(
            [.. ids],
            [.. ids.Select((id, index) => trained[index] || config.TrainOn == TrainOn.All ? id : Row.NoLoss)],
            line
        );
}
