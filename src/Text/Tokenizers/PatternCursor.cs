using System.Globalization;
using System.Text;

namespace Memopt.Text.Tokenizers;

/// <summary>Reads characters and escapes of Oniguruma's patterns, one after the other.</summary>
internal sealed class PatternCursor(string pattern)
{
    /// <summary>Where the next character is.</summary>
    public int At { get; set; }

    public bool Ended => At >= pattern.Length;

    /// <summary>The pattern from where the next character is.</summary>
    public string Rest => pattern[At..];

    /// <summary>A character ahead, or NUL behind the end.</summary>
    public char Peek(int ahead) => At + ahead < pattern.Length ? pattern[At + ahead] : '\0';

    /// <summary>The text from a place up to another.</summary>
    public string Between(int start, int end) => pattern[start..Math.Min(end, pattern.Length)];

    /// <summary>Whether a text is next.</summary>
    public bool IsAt(string text) => string.CompareOrdinal(pattern, At, text, 0, text.Length) == 0;

    /// <summary>The set that an escape stands for, or null for one that is a character.</summary>
    public PatternPiece? Escaped(bool inClass)
    {
        var kind = Peek(1);
        var (name, plain) = char.ToLowerInvariant(kind) switch
        {
            'd' => ("digit", true),
            's' => ("space", true),
            'w' => ("word", false),
            'h' => ("xdigit", false),
            'p' => ("", false),
            _ => (null, false),
        };
        if (name is null)
            return null;
        var (start, negated) = (At, char.IsUpper(kind));
        At += 2;
        if (name.Length == 0)
        {
            name = PropertyName(kind);
            plain = name.Length <= 2 && char.IsUpper(name[0]) && name != "LC";
            if (name.StartsWith('^'))
                (name, negated) = (name[1..], !negated);
        }
        var word = !inClass && name.Equals("word", StringComparison.OrdinalIgnoreCase);
        var set =
            (word ? CodePointSet.Word : CodePointSet.Named(name))
            ?? throw new ArgumentException($"the character class {pattern[start..At]}");
        // As a name, .NET would find every stand-in in a set of surrogates.
        if (!plain || set.Contains(0xD800))
            return new("", negated ? set.Not() : set);
        var letter = char.ToLowerInvariant(kind);
        return new(letter == 'p' ? $@"\p{{{name}}}" : $"\\{letter}", set, negated);
    }

    /// <summary>The name in braces behind \p or \P.</summary>
    private string PropertyName(char kind)
    {
        var close = Peek(0) == '{' ? pattern.IndexOf('}', At) : -1;
        if (close < 0)
            throw new ArgumentException($"the escape \\{kind}");
        var name = pattern[(At + 1)..close];
        At = close + 1;
        return name;
    }

    /// <summary>One character, as it stands or escaped.</summary>
    public int Literal()
    {
        if (pattern[At] != '\\')
            return Plain();
        var kind = Peek(1);
        if (kind == '\0')
            throw new ArgumentException("a backslash at the end");
        if (Control(kind) is { } control)
        {
            At += 2;
            return control;
        }
        switch (kind)
        {
            case 'u':
                At += 2;
                return Number(4);
            case 'x':
                At += 2;
                return Peek(0) == '{' ? NumberInBraces() : Number(2);
            default:
                At++;
                return char.IsAsciiLetterOrDigit(kind) ? throw new ArgumentException($"the escape \\{kind}") : Plain();
        }
    }

    private static char? Control(char kind) =>
        kind switch
        {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'f' => '\f',
            'v' => '\v',
            'a' => '\a',
            'e' => '\u001B',
            _ => null,
        };

    private int NumberInBraces()
    {
        var close = pattern.IndexOf('}', At);
        if (close < 0)
            throw new ArgumentException("an open '{'");
        At++;
        var code = Number(close - At);
        At++;
        return code;
    }

    private int Plain()
    {
        Rune.DecodeFromUtf16(pattern.AsSpan(At), out var rune, out var length);
        At += length;
        return rune.Value;
    }

    private int Number(int digits)
    {
        if (
            At + digits > pattern.Length
            || !int.TryParse(
                pattern.AsSpan(At, digits),
                NumberStyles.HexNumber,
                CultureInfo.InvariantCulture,
                out var code
            )
            || code > 0x10FFFF
        )
            throw new ArgumentException("a character's number");
        At += digits;
        return code;
    }
}
