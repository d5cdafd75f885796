using System.Globalization;
using System.Text;

namespace Memopt.Text.Jinja;

/// <summary>Upper and lower case as Python's str has them, where one letter may become several.</summary>
internal static class CaseMapping
{
    // A letter, then what it is in upper case.
    private const string Longer =
        "ßSS ŉʼN ǰJ\u030c ΐΙ\u0308\u0301 ΰΥ\u0308\u0301 ևԵՒ ẖH\u0331 ẗT\u0308 ẘW\u030a ẙY\u030a ẚAʾ ὐΥ\u0313 "
        + "ὒΥ\u0313\u0300 ὔΥ\u0313\u0301 ὖΥ\u0313\u0342 ᾀἈΙ "
        + "ᾁἉΙ ᾂἊΙ ᾃἋΙ ᾄἌΙ ᾅἍΙ ᾆἎΙ ᾇἏΙ ᾈἈΙ ᾉἉΙ ᾊἊΙ ᾋἋΙ ᾌἌΙ ᾍἍΙ ᾎἎΙ ᾏἏΙ ᾐἨΙ ᾑἩΙ ᾒἪΙ ᾓἫΙ ᾔἬΙ ᾕἭΙ ᾖἮΙ ᾗἯΙ ᾘἨΙ ᾙἩΙ "
        + "ᾚἪΙ ᾛἫΙ ᾜἬΙ ᾝἭΙ ᾞἮΙ ᾟἯΙ ᾠὨΙ ᾡὩΙ ᾢὪΙ ᾣὫΙ ᾤὬΙ ᾥὭΙ ᾦὮΙ "
        + "ᾧὯΙ ᾨὨΙ ᾩὩΙ ᾪὪΙ ᾫὫΙ ᾬὬΙ ᾭὭΙ ᾮὮΙ ᾯὯΙ ᾲᾺΙ ᾳΑΙ ᾴΆΙ ᾶΑ\u0342 ᾷΑ\u0342Ι ᾼΑΙ ῂῊΙ ῃΗΙ ῄΉΙ ῆΗ\u0342 ῇΗ\u0342Ι "
        + "ῌΗΙ ῒΙ\u0308\u0300 ΐΙ\u0308\u0301 ῖΙ\u0342 "
        + "ῗΙ\u0308\u0342 ῢΥ\u0308\u0300 ΰΥ\u0308\u0301 ῤΡ\u0313 ῦΥ\u0342 ῧΥ\u0308\u0342 ῲῺΙ ῳΩΙ ῴΏΙ ῶΩ\u0342 "
        + "ῷΩ\u0342Ι ῼΩΙ ﬀFF ﬁFI ﬂFL ﬃFFI ﬄFFL ﬅST ﬆST ﬓՄՆ ﬔՄԵ "
        + "ﬕՄԻ ﬖՎՆ ﬗՄԽ";

    private static readonly Dictionary<char, string> Uppers = Longer
        .Split(' ')
        .ToDictionary(entry => entry[0], entry => entry[1..]);

    public static string Upper(string text)
    {
        RenderCost.Spend(text.Length);
        if (Ascii.IsValid(text))
            return text.ToUpperInvariant();
        var output = new StringBuilder(text.Length);
        foreach (var rune in text.EnumerateRunes())
        {
            if (rune.IsBmp && Uppers.TryGetValue((char)rune.Value, out var longer))
                output.Append(longer);
            else
                output.Append(Rune.ToUpperInvariant(rune));
        }
        return output.ToString();
    }

    public static string Lower(string text)
    {
        RenderCost.Spend(text.Length);
        if (Ascii.IsValid(text))
            return text.ToLowerInvariant();
        var output = new StringBuilder(text.Length);
        for (var i = 0; i < text.Length; i++)
        {
            if (i % 4096 == 0)
                RenderCost.Spend(4096);
            if (text[i] == '\u0130')
                output.Append("i\u0307");
            else if (text[i] == 'Σ')
                output.Append(EndsWord(text, i) ? 'ς' : 'σ');
            else if (Rune.TryGetRuneAt(text, i, out var rune))
            {
                output.Append(Rune.ToLowerInvariant(rune));
                i += rune.Utf16SequenceLength - 1;
            }
            else
                output.Append(text[i]);
        }
        return output.ToString();
    }

    // A sigma with a letter before it and none after it.
    private static bool EndsWord(string text, int at) => IsLetter(text, at - 1, -1) && !IsLetter(text, at + 1, 1);

    /// <summary>Whether the first character from a place on, marks and the like left out, is a letter.</summary>
    private static bool IsLetter(string text, int from, int step)
    {
        var at = from;
        while (at >= 0 && at < text.Length && IsPassed(text[at]))
            at += step;
        return at >= 0 && at < text.Length && char.IsLetter(text[at]);
    }

    private static bool IsPassed(char unit) =>
        unit is '\'' or '.' or ':' or '\u00AD' or '\u2019'
        || char.GetUnicodeCategory(unit)
            is UnicodeCategory.NonSpacingMark
                or UnicodeCategory.Format
                or UnicodeCategory.ModifierSymbol
                or UnicodeCategory.ModifierLetter;
}
