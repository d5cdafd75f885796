using System.Globalization;
using System.Text;

namespace Memopt.Trainer.Data.Tokenizers;

/// <summary>Text on its way to tokens: every UTF-16 unit remembers the stretch of the original that it came from.</summary>
internal sealed class Aligned(string text, int[] from, int[] to)
{
    public string Text { get; } = text;

    public int Length => Text.Length;

    public static Aligned Of(string text)
    {
        var (from, to) = (new int[text.Length], new int[text.Length]);
        for (var i = 0; i < text.Length; i++)
        {
            // Both halves of a surrogate pair stand for the whole character.
            var low = char.IsLowSurrogate(text[i]);
            var high = char.IsHighSurrogate(text[i]);
            from[i] = low && i > 0 ? i - 1 : i;
            to[i] = high && i + 1 < text.Length ? i + 2 : i + 1;
        }
        return new(text, from, to);
    }

    public int From(int index) => from[index];

    public int To(int index) => to[index];

    public Aligned Slice(int start, int length) =>
        length == Length ? this : new(Text.Substring(start, length), from[start..(start + length)], to[start..(start + length)]);

    /// <summary>The code point at an index and how many units it takes.</summary>
    public Rune RuneAt(int index) => Rune.GetRuneAt(Text, index);

    /// <summary>Replaces lone surrogates, which no UTF-8 can hold, by U+FFFD; lengths stay.</summary>
    public static string WellFormed(string text)
    {
        var bad = false;
        for (var i = 0; i < text.Length && !bad; i++)
        {
            if (!char.IsSurrogate(text[i])) continue;
            if (i + 1 < text.Length && char.IsSurrogatePair(text[i], text[i + 1])) i++;
            else bad = true;
        }
        if (!bad) return text;
        var clean = new StringBuilder(text.Length);
        for (var i = 0; i < text.Length; i++)
        {
            if (!char.IsSurrogate(text[i])) clean.Append(text[i]);
            else if (i + 1 < text.Length && char.IsSurrogatePair(text[i], text[i + 1])) clean.Append(text[i]).Append(text[++i]);
            else clean.Append('\uFFFD');
        }
        return clean.ToString();
    }

    public static bool IsWordRune(Rune rune) => rune.Value is 0x200C or 0x200D || Rune.GetUnicodeCategory(rune) is
        UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter or
        UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter or UnicodeCategory.LetterNumber or
        UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark or
        UnicodeCategory.DecimalDigitNumber or UnicodeCategory.ConnectorPunctuation;
}

/// <summary>Collects an <see cref="Aligned"/> piece by piece.</summary>
internal sealed class AlignedBuilder
{
    private readonly StringBuilder text = new();
    private readonly List<int> from = [];
    private readonly List<int> to = [];

    public int Length => text.Length;

    public void Append(string units, int start, int end)
    {
        text.Append(units);
        for (var i = 0; i < units.Length; i++)
        {
            from.Add(start);
            to.Add(end);
        }
    }

    public void Append(char unit, int start, int end)
    {
        text.Append(unit);
        from.Add(start);
        to.Add(end);
    }

    public void Append(Aligned source, int start, int length)
    {
        text.Append(source.Text, start, length);
        for (var i = start; i < start + length; i++)
        {
            from.Add(source.From(i));
            to.Add(source.To(i));
        }
    }

    public Aligned Build() => new(text.ToString(), [.. from], [.. to]);
}
