using System.Text.Json.Nodes;

namespace Memopt.Trainer.Data;

/// <summary>Rows that are tokens already: input_ids, and labels, attention_mask and masks of the loss beside them.
/// </summary>
internal static class TokenizedRow
{
    /// <summary>Keys that such a row may have. What the tokens were made of may still be beside them.</summary>
    public static readonly IReadOnlyList<string> Keys =
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
    ];

    public static Row Read(JsonObject json, int line)
    {
        var ids = RowFields.Integers(json, "input_ids")!;
        var labels = RowFields.Integers(json, "labels") ?? ids;
        CheckValues(ids, labels);
        if (RowFields.Integers(json, "attention_mask") is { } mask)
        {
            var kept = WithoutPadding(ids, mask);
            (ids, labels) = (ids[..kept], labels[..kept]);
        }
        labels = [.. labels];
        foreach (var key in KnownKeys.Masks)
        {
            if (RowFields.Integers(json, key) is { } carries)
                TakeLossAway(labels, carries, key);
        }
        return new(ids, labels, line);
    }

    private static void CheckValues(int[] ids, int[] labels)
    {
        if (labels.Length != ids.Length)
            throw new RowFault("labels and input_ids differ in length", $"{labels.Length} and {ids.Length}");
        if (ids.FirstOrDefault(id => id < 0) is < 0 and var negative)
            throw new RowFault("a token id is negative", $"{negative}");
        if (labels.FirstOrDefault(label => label < 0 && label != Row.NoLoss) is < 0 and var odd)
            throw new RowFault("a label is negative and not -100", $"{odd}");
    }

    /// <summary>How many tokens stand before the padding at the end.</summary>
    private static int WithoutPadding(int[] ids, int[] mask)
    {
        if (mask.Length != ids.Length)
            throw new RowFault("attention_mask and input_ids differ in length", $"{mask.Length} and {ids.Length}");
        var kept = Array.FindLastIndex(mask, value => value != 0) + 1;
        if (mask.Take(kept).Contains(0))
            throw new RowFault("attention_mask has a 0 before its last 1", "only padding at the end is supported");
        return kept;
    }

    private static void TakeLossAway(int[] labels, int[] carries, string key)
    {
        if (carries.Length < labels.Length)
            throw new RowFault($"{key} and input_ids differ in length", $"{carries.Length} and {labels.Length}");
        for (var t = 0; t < labels.Length; t++)
            labels[t] = carries[t] == 0 ? Row.NoLoss : labels[t];
    }
}
