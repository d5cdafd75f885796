using System.Text.Json;
using System.Text.Json.Nodes;

namespace Memopt.Trainer.Data;

/// <summary>
/// Keys of rows and messages to which a tool gives a meaning: transformers, TRL, Axolotl, LLaMA-Factory, ms-swift,
/// Unsloth, OpenAI, ShareGPT. A shape of rows says which of them it reads. One that it does not read is refused with
/// the reason here, as ignoring it would train something else than its author meant. A key that is not here has no
/// meaning: it is reported once for a data set (<see cref="Remarks"/>).
/// </summary>
internal static class KnownKeys
{
    private const string Media = "images, videos and sounds are not trained on yet";
    private const string Pairs = "preference pairs are not trained on yet";
    private const string Chats =
        "only a chat has a place for it: rows of messages, of conversations, or of instruction and output";
    private const string Alpaca = "it belongs to rows of instruction and output";
    private const string Weights = "a row has no weight of its own: a source has one, {\"source\": …, \"weight\": 2}";
    private const string Packed =
        "rows that hold several documents are not read: write a row for each, and set data.packing";

    /// <summary>What a chat reads beside its messages.</summary>
    public static readonly IReadOnlyList<string> OfChats =
    [
        "system",
        "system_prompt",
        "tools",
        "functions",
        "documents",
        "parallel_tool_calls",
        "chat_template_kwargs",
    ];

    /// <summary>
    /// Keys of a message that say whether it carries loss: OpenAI's and ShareGPT's, Axolotl's, ms-swift's.
    /// </summary>
    public static readonly IReadOnlyList<string> Trained = ["weight", "train", "training", "loss"];

    /// <summary>Masks beside input_ids that take loss away where they are 0: TRL's and Megatron's.</summary>
    public static readonly IReadOnlyList<string> Masks = ["completion_mask", "assistant_masks", "loss_mask"];

    /// <summary>What a row says of its answer by true or false: TRL's and ms-swift's, LLaMA-Factory's.</summary>
    public static readonly IReadOnlyList<string> Opinions = ["label", "kto_tag"];

    private static readonly Dictionary<string, string> ofRows = Table(
        (Media, ["image", "images", "video", "videos", "audio", "audios", "pixel_values", "objects"]),
        (Pairs, ["chosen", "rejected", "rejected_response", "rejected_messages", "rejected_images"]),
        (Chats, [.. OfChats]),
        (Alpaca, ["history"]),
        (Weights, ["weight", "sample_weight", "loss_weight", "loss_scale"]),
        (Packed, ["position_ids", "seq_lengths", "seq_idx"])
    );

    private static readonly Dictionary<string, string> ofMessages = Table(
        (Media, ["image", "images", "video", "videos", "audio", "audios"]),
        (Pairs, ["chosen", "rejected"]),
        (
            "loss on parts of a turn is not supported: true or false for the whole turn is \"train\"",
            ["train_detail", "training_detail"]
        ),
        ("a turn carries loss or none: \"weight\" 0 or 1", ["loss_scale"]),
        ("write what the assistant says as its content", ["refusal"]),
        ("an answer whose beginning is given is not supported: write the whole answer as content", ["prefix"])
    );

    /// <summary>Refuses keys with a meaning that a shape does not read, and notes those without one.</summary>
    public static void Check(JsonObject row, IReadOnlyCollection<string> reads, Remarks remarks)
    {
        foreach (var (key, value) in row)
        {
            if (!Given(value) || reads.Contains(key))
                continue;
            if (ofRows.TryGetValue(key, out var why))
                throw new RowFault(
                    $"column \"{key}\" is not supported here",
                    $"{why}; to leave it out give it a name of its own, \"columns\": {{\"unused\": \"{key}\"}}"
                );
            remarks.Column(key);
        }
    }

    /// <summary>Refuses keys of a message with a meaning that nothing here has a place for.</summary>
    public static void Check(JsonObject message, int number)
    {
        foreach (var (key, value) in message)
        {
            if (Given(value) && ofMessages.TryGetValue(key, out var why))
                throw new RowFault($"\"{key}\" of message {number} is not supported", why);
        }
    }

    /// <summary>
    /// Whether a value says anything: a table has an empty text where there is none, and a list of objects with unlike
    /// keys has null or false.
    /// </summary>
    public static bool Given(JsonNode? value) =>
        value switch
        {
            null => false,
            JsonArray list => list.Count > 0,
            JsonObject map => map.Count > 0,
            _ => value.GetValueKind() is not (JsonValueKind.False or JsonValueKind.Null)
                && !(value.GetValueKind() == JsonValueKind.String && value.ToJsonString() == "\"\""),
        };

    private static Dictionary<string, string> Table(params (string Why, string[] Keys)[] groups) =>
        groups.SelectMany(group => group.Keys.Select(key => (key, group.Why))).ToDictionary();
}
