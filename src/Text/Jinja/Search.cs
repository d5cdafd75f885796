namespace Memopt.Text.Jinja;

/// <summary>
/// Finds a text in others in linear time. <c>string.IndexOf</c> takes the product of both lengths where the text nearly
/// matches everywhere, which for two texts of megabytes is hours.
/// </summary>
internal sealed class Search(string part)
{
    private const int Short = 64;

    private int[]? matches; // of Knuth, Morris and Pratt: how much of the part still matches once a character does not

    /// <summary>The first place at or behind another; -1 for none.</summary>
    public int In(string text, int from = 0)
    {
        var at = part.Length <= Short ? text.IndexOf(part, from, StringComparison.Ordinal) : Long(text, from);
        RenderCost.Spend((at < 0 ? text.Length : at) - from + part.Length);
        return at;
    }

    /// <summary>The places in their order, none overlapping another.</summary>
    public IEnumerable<int> All(string text)
    {
        for (var at = In(text); at >= 0; at = In(text, at + part.Length))
            yield return at;
    }

    /// <summary>The last place; -1 for none.</summary>
    public static int Last(string part, string text) =>
        new Search(Backwards(part)).In(Backwards(text)) is >= 0 and var at ? text.Length - at - part.Length : -1;

    public static string Backwards(string text) =>
        string.Create(
            text.Length,
            text,
            (span, from) =>
            {
                from.CopyTo(span);
                span.Reverse();
            }
        );

    private int Long(string text, int from)
    {
        matches ??= Table();
        var matched = 0;
        for (var i = from; i < text.Length; i++)
        {
            if (i % 4096 == 0)
                RenderCost.Spend(4096);
            while (matched > 0 && text[i] != part[matched])
                matched = matches[matched - 1];
            if (text[i] == part[matched])
                matched++;
            if (matched == part.Length)
                return i + 1 - part.Length;
        }
        return -1;
    }

    private int[] Table()
    {
        var table = new int[part.Length];
        var matched = 0;
        for (var i = 1; i < part.Length; i++)
        {
            while (matched > 0 && part[i] != part[matched])
                matched = table[matched - 1];
            table[i] = part[i] == part[matched] ? ++matched : matched;
        }
        return table;
    }
}
