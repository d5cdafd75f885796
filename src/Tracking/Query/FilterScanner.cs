using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Memopt.Tracking;

/// <summary>Reads the words, names, numbers and texts of a filter, from left to right. What reads something optional
/// stays where it is when that is not there.</summary>
internal sealed partial class FilterScanner(string text)
{
    private static readonly (string Spelled, string Meant)[] signs =
    [
        ("==", "="),
        ("=", "="),
        ("!=", "!="),
        ("<>", "!="),
        ("<=", "<="),
        ("<", "<"),
        (">=", ">="),
        (">", ">"),
    ];

    private int at;

    /// <summary>Where the next character is, from 0.</summary>
    public int Position => at;

    public bool AtEnd => at >= text.Length;

    /// <summary>Passes over white space.</summary>
    public void Blank()
    {
        while (at < text.Length && char.IsWhiteSpace(text[at]))
            at++;
    }

    /// <summary>Whether a word of the language comes next.</summary>
    public bool PeekWord(string word)
    {
        Blank();
        var end = at + word.Length;
        return end <= text.Length
            && text.AsSpan(at, word.Length).Equals(word, StringComparison.OrdinalIgnoreCase)
            && (end == text.Length || !(char.IsLetterOrDigit(text[end]) || text[end] is '_' or '.'));
    }

    public bool Word(string word)
    {
        if (!PeekWord(word))
            return false;
        at += word.Length;
        return true;
    }

    public bool Symbol(string symbol)
    {
        Blank();
        if (!text.AsSpan(at).StartsWith(symbol, StringComparison.Ordinal))
            return false;
        at += symbol.Length;
        return true;
    }

    /// <summary>Whether this character comes next, without white space before it.</summary>
    public bool Peek(char symbol) => at < text.Length && text[at] == symbol;

    /// <summary>The same, and reads it.</summary>
    public bool Adjacent(char symbol)
    {
        if (!Peek(symbol))
            return false;
        at++;
        return true;
    }

    /// <summary>A comparison; of two spellings the one.</summary>
    public string? Sign()
    {
        foreach (var (spelled, meant) in signs)
        {
            if (Symbol(spelled))
                return meant;
        }
        return null;
    }

    /// <summary>Letters, digits and _; empty when there are none.</summary>
    public string Letters() => Match(LettersForm());

    /// <summary>What a name after a dot can have without quotes; empty when there is none.</summary>
    public string KeyLetters() => Match(KeyLettersForm());

    /// <summary>Digits and minus signs; empty when there are none.</summary>
    public string Digits() => Match(DigitsForm());

    /// <summary>A name between backticks or double quotes.</summary>
    public string? Quoted() => at < text.Length && text[at] is '`' or '"' ? Between() : null;

    /// <summary>A text between single or double quotes; a quote in it is written twice.</summary>
    public string? Text()
    {
        Blank();
        return at < text.Length && text[at] is '\'' or '"' ? Between() : null;
    }

    public double? Number()
    {
        Blank();
        var match = NumberForm().Match(text, at);
        if (!match.Success)
            return null;
        at += match.Length;
        if (at < text.Length && (char.IsLetterOrDigit(text[at]) || text[at] is '_' or '.'))
            throw Wrong("a number goes on with what no number has");
        return match.Value.Contains("inf", StringComparison.OrdinalIgnoreCase)
            ? match.Value[0] == '-'
                ? double.NegativeInfinity
                : double.PositiveInfinity
            : double.Parse(match.Value, CultureInfo.InvariantCulture);
    }

    /// <summary>A time: milliseconds since 1970, as MLflow has it, or a date in quotes, UTC unless it says
    /// otherwise.</summary>
    public double Time()
    {
        Blank();
        var where = at;
        if (Number() is { } milliseconds)
            return milliseconds;
        var date = Text() ?? throw Wrong("expected milliseconds, or a date in quotes", where);
        return DateTimeOffset.TryParse(date, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var time)
            ? time.ToUnixTimeMilliseconds()
            : throw Wrong($"\"{date}\" is no date; write '2026-11-25' or '2026-11-25 13:00'", where);
    }

    /// <summary>Throws unless all was read.</summary>
    public void End(string otherwise)
    {
        Blank();
        if (at < text.Length)
            throw Wrong(otherwise);
    }

    /// <summary>The fault that a text has at a place.</summary>
    /// <param name="problem">What is wrong, or was expected.</param>
    /// <param name="where">Null for the next character that is not white space.</param>
    public QueryException Wrong(string problem, int? where = null)
    {
        if (where is null)
            Blank();
        var position = where ?? at;
        var found = position >= text.Length ? "" : $" (found {Excerpt(position)})";
        return new(text, position, problem + found + ".");
    }

    private string Match(Regex form)
    {
        var match = form.Match(text, at);
        at += match.Length;
        return match.Value;
    }

    private string Between()
    {
        var (start, quote) = (at, text[at++]);
        var value = new StringBuilder();
        for (; at < text.Length; at++)
        {
            if (text[at] != quote)
                value.Append(text[at]);
            else if (at + 1 < text.Length && text[at + 1] == quote)
                value.Append(text[at++]);
            else
            {
                at++;
                return value.ToString();
            }
        }
        throw Wrong($"the {quote} that opens here is not closed", start);
    }

    private string Excerpt(int position) =>
        text.Length - position > 20 ? $"\"{text.AsSpan(position, 20)}…\"" : $"\"{text[position..]}\"";

    // Each at the place where it is asked for: none looks further or copies the rest.

    [GeneratedRegex(@"\G\w+")]
    private static partial Regex LettersForm();

    [GeneratedRegex(@"\G[\w./:-]+")]
    private static partial Regex KeyLettersForm();

    [GeneratedRegex(@"\G[0-9-]+")]
    private static partial Regex DigitsForm();

    [GeneratedRegex(@"\G[+-]?((\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|inf(inity)?\b)", RegexOptions.IgnoreCase)]
    private static partial Regex NumberForm();
}
