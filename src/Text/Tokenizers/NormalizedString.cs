using System.Text;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>
/// A stretch of text on its way to tokens: every UTF-16 unit remembers the stretch of the original that it came from.
/// A slice is a window on the same text, and text that nothing has changed needs no table of where it came from.
/// </summary>
internal readonly struct NormalizedString
{
    private readonly string text;
    private readonly int[]? from,
        to; // by index into text; null where every character stands for itself
    private readonly int start,
        shift; // the window begins at start; unchanged text lies shift further on in the original

    private NormalizedString(string text, int[]? from, int[]? to, int start, int length, int shift, Budget? budget)
    {
        (this.text, this.from, this.to, this.start, Length, this.shift, Budget) = (
            text,
            from,
            to,
            start,
            length,
            shift,
            budget
        );
    }

    public NormalizedString(string text, int[] from, int[] to, Budget? budget)
        : this(text, from, to, 0, text.Length, 0, budget) { }

    /// <param name="text">The original.</param>
    /// <param name="budget">What all that is made of it may cost; null for no limit.</param>
    public static NormalizedString Of(string text, Budget? budget = null) =>
        new(text, null, null, 0, text.Length, 0, budget);

    /// <summary>What the work on this text may still cost.</summary>
    public Budget? Budget { get; }

    public ReadOnlySpan<char> Text => text.AsSpan(start, Length);

    public int Length { get; }

    /// <summary>Whether it stands for the beginning of the original, which need not be its own: marks may have changed
    /// places.</summary>
    public bool IsFirst => from is null ? shift + start == 0 : from.AsSpan(start, Length).Contains(0);

    /// <summary>Where in the original the character at an index begins.</summary>
    public int From(int index)
    {
        var at = start + index;
        return from is not null ? from[at] : shift + (at > 0 && char.IsLowSurrogate(text[at]) ? at - 1 : at);
    }

    /// <summary>Where in the original the character at an index ends.</summary>
    public int To(int index)
    {
        var at = start + index;
        return to is not null
            ? to[at]
            : shift + (char.IsHighSurrogate(text[at]) && at + 1 < text.Length ? at + 2 : at + 1);
    }

    public NormalizedString Slice(int at, int length) => new(text, from, to, start + at, length, shift, Budget);

    /// <summary>Other text of the same length that stands for the same characters, one by one.</summary>
    public NormalizedString Respelled(string other) =>
        from is null
            ? new(other, null, null, 0, Length, shift + start, Budget)
            : new(other, from[start..(start + Length)], to![start..(start + Length)], 0, Length, 0, Budget);

    /// <summary>The code point at an index.</summary>
    public Rune RuneAt(int index)
    {
        Rune.DecodeFromUtf16(Text[index..], out var rune, out _);
        return rune;
    }

    /// <summary>Replaces lone surrogates, which no UTF-8 can hold, by U+FFFD; lengths stay.</summary>
    public static string WellFormed(string text)
    {
        if (text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
            return text;
        var clean = text.ToCharArray();
        for (var i = 0; i < clean.Length; i++)
        {
            if (!char.IsSurrogate(clean[i]))
                continue;
            if (i + 1 < clean.Length && char.IsSurrogatePair(clean[i], clean[i + 1]))
                i++;
            else
                clean[i] = '\uFFFD';
        }
        return new(clean);
    }
}
