using System.Collections.Concurrent;

namespace Memopt.Trainer.Data;

/// <summary>Warnings about columns and keys of a data set that training does not use, or reads unlike other tools;
/// each is reported once. Safe for several threads.
/// </summary>
internal sealed class Remarks
{
    private const int Most = 24,
        Longest = 60;
    private static readonly HashSet<string> labels = new(
        ["label", "labels", "label_text", "class", "category", "target", "sentiment", "intent", "topic"],
        StringComparer.OrdinalIgnoreCase
    );

    private readonly ConcurrentDictionary<string, bool> columns = new(),
        unwritten = new();
    private volatile bool labelled;

    /// <summary>A column that nothing reads.</summary>
    public void Column(string name) => Note(columns, name);

    /// <summary>A key of messages, or of a chat, that the model's chat template does not write.</summary>
    public void Unwritten(string name) => Note(unwritten, name);

    /// <summary>Rows of a text and its label are there.</summary>
    public void Labelled() => labelled = true;

    /// <summary>The remarks as sentences without a full stop.</summary>
    public IEnumerable<string> Lines
    {
        get
        {
            if (labelled)
                yield return "rows of text and label: the label is trained as the answer to the text; "
                    + "to train on the text alone give the label another name, \"columns\": {\"class\": \"label\"}";
            if (columns.Keys.Where(labels.Contains).Order(StringComparer.Ordinal).FirstOrDefault() is { } label)
                yield return $"column \"{label}\" looks like a label and is not used; "
                    + $"to train on it as the answer, \"columns\": {{\"text\": …, \"label\": \"{label}\"}}";
            if (!columns.IsEmpty)
                yield return $"columns that are not used: {List(columns)}";
            if (!unwritten.IsEmpty)
                yield return $"not written by the model's chat template: {List(unwritten)}";
        }
    }

    private static void Note(ConcurrentDictionary<string, bool> names, string name)
    {
        if (names.ContainsKey(name) || names.Count > Most)
            return;
        // A name may be a stranger's: it is shown on a terminal.
        names.TryAdd(string.Concat(name.Take(Longest).Select(c => char.IsControl(c) ? '\uFFFD' : c)), true);
    }

    private static string List(ConcurrentDictionary<string, bool> names) =>
        string.Join(", ", names.Keys.Order(StringComparer.Ordinal).Take(Most)) + (names.Count > Most ? ", …" : "");
}
