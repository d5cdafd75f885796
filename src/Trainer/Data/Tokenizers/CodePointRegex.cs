using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Memopt.Trainer.Data.Tokenizers;

/// <summary>
/// A tokenizer's regular expression, matched by code points. .NET's engine sees UTF-16, where a letter beyond the basic
/// plane is no <c>\p{L}</c>; so it is shown a shadow of the text in which each such character is one unit of the same category.
/// </summary>
internal sealed class CodePointRegex
{
    // One rarely used character of the basic plane for each category there is beyond it; a pattern whose class spans one is refused.
    private static readonly Dictionary<UnicodeCategory, char> StandIns = Choose();

    private readonly Regex regex;

    public CodePointRegex(string pattern)
    {
        try
        {
            regex = new(Translate(pattern), RegexOptions.CultureInvariant | RegexOptions.Compiled);
        }
        catch (ArgumentException error)
        {
            throw new UserFault("The tokenizer's regular expression is not supported.", $"{pattern} ({error.Message})", inner: error);
        }
    }

    /// <summary>Where it matches, in UTF-16 units of the text; empty matches are left out.</summary>
    public List<(int Start, int End)> Matches(ReadOnlySpan<char> text)
    {
        var found = new List<(int, int)>();
        var starts = text.IndexOfAnyInRange('\uD800', '\uDFFF') < 0 ? null : new int[text.Length + 1];
        foreach (var match in regex.EnumerateMatches(starts is null ? text : Shadow(text, starts)))
        {
            var (start, end) = (match.Index, match.Index + match.Length);
            if (match.Length > 0) found.Add(starts is null ? (start, end) : (starts[start], starts[end]));
        }
        return found;
    }

    private static char[] Shadow(ReadOnlySpan<char> text, int[] starts)
    {
        var shadow = new char[text.Length];
        var (count, at) = (0, 0);
        foreach (var rune in text.EnumerateRunes())
        {
            shadow[count] = rune.IsBmp ? (char)rune.Value : StandIns[Rune.GetUnicodeCategory(rune)];
            starts[count++] = at;
            at += rune.Utf16SequenceLength;
        }
        starts[count] = at;
        return shadow[..count];
    }

    private static Dictionary<UnicodeCategory, char> Choose()
    {
        var beyond = new HashSet<UnicodeCategory>();
        for (var code = 0x10000; code <= 0x10FFFF; code++) beyond.Add(CharUnicodeInfo.GetUnicodeCategory(code));
        var found = new Dictionary<UnicodeCategory, char>();
        // From the top down: presentation forms and private use, which no pattern lists.
        for (var unit = 0xFFFF; unit >= 0 && found.Count < beyond.Count; unit--)
        {
            if (beyond.Contains(char.GetUnicodeCategory((char)unit))) found.TryAdd(char.GetUnicodeCategory((char)unit), (char)unit);
        }
        return found;
    }

    /// <summary>Oniguruma's spelling into .NET's: possessive quantifiers, line anchors, the long s under (?i).</summary>
    private static string Translate(string pattern)
    {
        var output = new StringBuilder();
        var groups = new Stack<(int Start, bool IgnoreCase)>();
        var (ignoreCase, atom) = (false, 0);
        for (var i = 0; i < pattern.Length;)
        {
            var unit = pattern[i];
            var start = output.Length;
            if (char.IsSurrogate(unit)) throw new ArgumentException("a character beyond U+FFFF");
            switch (unit)
            {
                case '\\':
                    var length = Escape(pattern, i);
                    output.Append(pattern, i, length);
                    atom = start;
                    i += length;
                    break;
                case '[':
                    var end = ClassEnd(pattern, i);
                    output.Append(pattern, i, end - i);
                    atom = start;
                    i = end;
                    break;
                case '(':
                    groups.Push((start, ignoreCase));
                    if (string.CompareOrdinal(pattern, i, "(?i)", 0, 4) == 0)
                    {
                        groups.Pop();
                        ignoreCase = true;
                        output.Append("(?i)");
                        i += 4;
                        break;
                    }
                    if (string.CompareOrdinal(pattern, i, "(?i:", 0, 4) == 0) ignoreCase = true;
                    var head = i + 1 < pattern.Length && pattern[i + 1] == '?' ? GroupHead(pattern, i) : 1;
                    output.Append(pattern, i, head);
                    i += head;
                    break;
                case ')':
                    if (groups.Count == 0) throw new ArgumentException("a ')' too many");
                    (atom, ignoreCase) = groups.Pop();
                    output.Append(')');
                    i++;
                    break;
                case '*' or '+' or '?' or '{':
                    var to = unit == '{' ? pattern.IndexOf('}', i) + 1 : i + 1;
                    if (to == 0) throw new ArgumentException("an open '{'");
                    output.Append(pattern, i, to - i);
                    // X{n}+ is a repeated repeat there, only after *, + and ? is a second plus possessive.
                    if (to < pattern.Length && pattern[to] == '+')
                    {
                        if (unit == '{') throw new ArgumentException("a quantifier after {…}");
                        output.Insert(atom, "(?>").Append(')');
                        to++;
                    }
                    else if (to < pattern.Length && pattern[to] == '?')
                    {
                        output.Append('?');
                        to++;
                    }
                    i = to;
                    break;
                case '$':
                    output.Append(@"(?=\n|\z)");
                    i++;
                    break;
                case '^':
                    output.Append(@"(?<=\A|\n)");
                    i++;
                    break;
                default:
                    output.Append(ignoreCase && (unit is 's' or 'S') ? "[s\u017F]" : unit.ToString());
                    atom = start;
                    i++;
                    break;
            }
        }
        return output.ToString();
    }

    private static int Escape(string pattern, int at)
    {
        if (at + 1 >= pattern.Length) throw new ArgumentException("a backslash at the end");
        var kind = pattern[at + 1];
        if (kind is 'p' or 'P' && at + 2 < pattern.Length && pattern[at + 2] == '{')
        {
            var close = pattern.IndexOf('}', at);
            var name = pattern[(at + 3)..(close < 0 ? pattern.Length : close)];
            if (name.Length is 0 or > 2 || name[0] == '^') throw new ArgumentException($"the character class \\{kind}{{{name}}}");
            return close + 1 - at;
        }
        return kind switch
        {
            'u' => 6,
            'r' or 'n' or 't' or 'f' or 'v' or 's' or 'S' or 'd' or 'D' or 'w' or 'W' or 'b' or 'B' or 'A' or 'z' => 2,
            _ when !char.IsAsciiLetterOrDigit(kind) => 2,
            _ => throw new ArgumentException($"the escape \\{kind}"),
        };
    }

    private static int ClassEnd(string pattern, int at)
    {
        var i = at + 1;
        if (i < pattern.Length && pattern[i] == '^') i++;
        for (var first = true; i < pattern.Length; first = false)
        {
            if (pattern[i] == '\\')
            {
                i += Escape(pattern, i);
                continue;
            }
            if (char.IsSurrogate(pattern[i])) throw new ArgumentException("a character beyond U+FFFF");
            if (pattern[i] == '[' || string.CompareOrdinal(pattern, i, "&&", 0, 2) == 0) throw new ArgumentException("a class within a class");
            if (pattern[i] == ']' && !first) return i + 1;
            if (i + 2 < pattern.Length && pattern[i + 1] == '-' && StandIns.Values.Any(unit => unit >= pattern[i] && unit <= pattern[i + 2]))
                throw new ArgumentException("a range this wide");
            i++;
        }
        throw new ArgumentException("an open '['");
    }

    private static int GroupHead(string pattern, int at)
    {
        foreach (var head in (string[])["(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"])
        {
            if (string.CompareOrdinal(pattern, at, head, 0, head.Length) == 0) return head.Length;
        }
        throw new ArgumentException($"the group {pattern[at..Math.Min(pattern.Length, at + 4)]}");
    }
}
