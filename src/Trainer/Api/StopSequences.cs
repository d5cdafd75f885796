namespace Memopt;

/// <summary>Hands out a text that grows, up to the first of some ends and without it. What may become an end is kept
/// back until it does not.</summary>
internal sealed class StopSequences(IReadOnlyList<string> ends)
{
    private string kept = "";

    /// <summary>Whether an end has been reached; nothing is handed out behind it.</summary>
    public bool Reached { get; private set; }

    /// <summary>Takes the next part of the text. The answer is what can be handed out now.</summary>
    public string Add(string text)
    {
        if (Reached)
            return "";
        text = kept + text;
        var end = FirstEnd(text);
        Reached = end >= 0;
        var until = Reached ? end : Settled(text);
        kept = text[until..];
        return text[..until];
    }

    /// <summary>What is kept back when the text is over.</summary>
    public string End() => Reached ? "" : kept;

    private int FirstEnd(string text) =>
        ends.Select(end => text.IndexOf(end, StringComparison.Ordinal)).Where(at => at >= 0).DefaultIfEmpty(-1).Min();

    /// <summary>Where the first stretch at the text's end begins with which an end begins.</summary>
    private int Settled(string text) =>
        ends.Select(end =>
                Enumerable
                    .Range(0, text.Length)
                    .Skip(Math.Max(0, text.Length - end.Length + 1))
                    .Where(at => end.StartsWith(text[at..], StringComparison.Ordinal))
                    .DefaultIfEmpty(text.Length)
                    .First()
            )
            .Append(text.Length)
            .Min();
}
