using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>A tokenizer's regular expression (Oniguruma's, as Rust's tokenizers use it), matched by code points.
/// .NET's engine sees UTF-16, where a letter beyond the basic plane is no <c>\p{L}</c>; so it is shown a shadow of the
/// text in which each such character is one unit: a lone surrogate, which no text has, the same for all characters that
/// the pattern does not tell apart.
/// </summary>
internal sealed class CodePointRegex
{
    private const int LongestPattern = 8_192,
        LongestShown = 200,
        MostSets = 1_000,
        LongestWritten = 1 << 20;
    private static readonly TimeSpan LongestMatch = TimeSpan.FromSeconds(5);

    private readonly Regex regex;
    private readonly List<(int From, char Unit)> beyond; // where a stretch of characters with one stand-in begins
    private readonly string pattern;

    /// <param name="pattern">As Oniguruma has it.</param>
    /// <param name="longest">What one match may take; null is the usual limit.</param>
    public CodePointRegex(string pattern, TimeSpan? longest = null)
    {
        this.pattern = pattern;
        try
        {
            if (pattern.Length > LongestPattern)
                throw new ArgumentException($"{pattern.Length:N0} characters, more than {LongestPattern:N0}");
            var read = new Reader(pattern);
            beyond = StandIns(read.Sets);
            regex = Compiled(read.Write(beyond), longest ?? LongestMatch);
        }
        catch (ArgumentException error)
        {
            throw new UserFault(
                "The tokenizer's regular expression is not supported.",
                $"{error.Message}: {Shown}",
                inner: error
            );
        }
    }

    /// <summary>
    /// A machine whose time grows with the text alone, which finds the same matches; where the pattern looks around,
    /// which that one cannot, one that goes back, with a limit on its time.
    /// </summary>
    private static Regex Compiled(string pattern, TimeSpan longest)
    {
        const RegexOptions options = RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture;
        try
        {
            return new(pattern, options | RegexOptions.NonBacktracking, longest);
        }
        catch (NotSupportedException)
        {
            return new(pattern, options | RegexOptions.Compiled, longest);
        }
    }

    /// <summary>Where it matches, in UTF-16 units of the text. An empty match does not follow another match at
    /// once.</summary>
    /// <exception cref="UserFault">One match takes seconds, or all together more than the budget.</exception>
    public List<(int Start, int End)> Matches(ReadOnlySpan<char> text, Budget? budget)
    {
        var found = new List<(int Start, int End)>();
        if (text.IsEmpty)
            return found;
        var starts = text.IndexOfAnyInRange('\uD800', '\uDFFF') < 0 ? null : new int[text.Length + 1];
        var last = -1;
        try
        {
            foreach (var match in regex.EnumerateMatches(starts is null ? text : Shadow(text, starts)))
            {
                budget?.Spend(Component.BytesPerMatch);
                var (start, end) = (match.Index, match.Index + match.Length);
                if (match.Length > 0 || start != last)
                    found.Add(starts is null ? (start, end) : (starts[start], starts[end]));
                last = end;
            }
        }
        catch (RegexMatchTimeoutException error)
        {
            throw new UserFault(
                "The tokenizer's regular expression takes too long.",
                found: $"one match takes more than {regex.MatchTimeout.TotalSeconds:0.##} s: {Shown}",
                next: "use another model: the pattern goes back and forth over the text",
                inner: error
            )
            {
                OverBudget = true,
            };
        }
        return found;
    }

    private string Shown => pattern.Length <= LongestShown ? pattern : pattern[..LongestShown] + "…";

    private char[] Shadow(ReadOnlySpan<char> text, int[] starts)
    {
        var shadow = new char[text.Length];
        var (count, at) = (0, 0);
        foreach (var rune in text.EnumerateRunes())
        {
            shadow[count] = rune.IsBmp ? (char)rune.Value : beyond[Stretch(rune.Value)].Unit;
            starts[count++] = at;
            at += rune.Utf16SequenceLength;
        }
        starts[count] = at;
        return shadow[..count];
    }

    private int Stretch(int code)
    {
        var (low, high) = (0, beyond.Count - 1);
        while (low < high)
        {
            var middle = (low + high + 1) / 2;
            if (beyond[middle].From <= code)
                low = middle;
            else
                high = middle - 1;
        }
        return low;
    }

    private static List<(int From, char Unit)> StandIns(IReadOnlyList<CodePointSet> sets)
    {
        var kinds = new Dictionary<string, char>();
        if (sets.Count > MostSets)
            throw new ArgumentException($"more than {MostSets} character classes");
        var starts = new SortedSet<int>(
            sets.SelectMany(set => set.Ranges)
                .SelectMany(range => (int[])[range.From, range.To + 1])
                .Where(code => code is > 0x10000 and <= 0x10FFFF)
        )
        {
            0x10000,
        };
        var found = new List<(int, char)>();
        foreach (var start in starts)
        {
            var kind = string.Concat(sets.Select(set => set.Contains(start) ? '1' : '0'));
            if (!kinds.TryGetValue(kind, out var unit))
                kinds[kind] = unit =
                    kinds.Count < 0x800
                        ? (char)(0xD800 + kinds.Count)
                        : throw new ArgumentException("too many character classes");
            found.Add((start, unit));
        }
        return found;
    }

    /// <summary>Oniguruma's spelling in .NET's, with the sets of characters left open until their stand-ins are
    /// known.</summary>
    private sealed class Reader
    {
        // A class that .NET understands alike keeps its text, which is matched faster than a list of ranges.
        private record Piece(string Text, CodePointSet? Set = null, bool Negated = false);

        private readonly string pattern;
        private readonly List<Piece> pieces = [];
        private int at;

        public Reader(string pattern)
        {
            this.pattern = pattern;
            Read();
        }

        public IReadOnlyList<CodePointSet> Sets => [.. pieces.Select(piece => piece.Set).OfType<CodePointSet>()];

        public string Write(List<(int From, char Unit)> beyond)
        {
            var output = new StringBuilder();
            foreach (var piece in pieces)
            {
                if (piece.Set is not { } set)
                {
                    output.Append(piece.Text);
                    continue;
                }
                var body = new StringBuilder(piece.Text);
                if (body.Length == 0)
                {
                    foreach (var (from, to) in set.Ranges.Where(range => range.From < 0xD800))
                        body.Append($@"\u{from:X4}-\u{Math.Min(to, 0xD7FF):X4}");
                    foreach (var (from, to) in set.Ranges.Where(range => range.To > 0xDFFF && range.From <= 0xFFFF))
                        body.Append($@"\u{Math.Max(from, 0xE000):X4}-\u{Math.Min(to, 0xFFFF):X4}");
                }
                foreach (
                    var unit in beyond
                        .Where(stretch => set.Contains(stretch.From))
                        .Select(stretch => stretch.Unit)
                        .Distinct()
                )
                    body.Append($@"\u{(int)unit:X4}");
                if (output.Length + body.Length > LongestWritten)
                    throw new ArgumentException("it stands for too long a pattern");
                output.Append(
                    body.Length == 0
                        ? piece.Negated
                            ? @"[\s\S]"
                            : "(?!)"
                        : $"[{(piece.Negated ? "^" : "")}{body}]"
                );
            }
            return output.ToString();
        }

        private void Read()
        {
            var groups = new Stack<(int Start, bool IgnoreCase)>();
            var (ignoreCase, atom) = (false, 0);
            while (at < pattern.Length)
            {
                var unit = pattern[at];
                var start = pieces.Count;
                switch (unit)
                {
                    case '[':
                        pieces.Add(Class(ignoreCase));
                        atom = start;
                        break;
                    case '(':
                        var head = Head();
                        if (head is "(?i)" or "(?-i)")
                        {
                            ignoreCase = head == "(?i)";
                        }
                        else
                        {
                            groups.Push((start, ignoreCase));
                            CheckDepth(groups.Count);
                            if (head == "(?i:")
                                ignoreCase = true;
                        }
                        pieces.Add(new(head));
                        break;
                    case ')':
                        if (groups.Count == 0)
                            throw new ArgumentException("a ')' too many");
                        (atom, ignoreCase) = groups.Pop();
                        pieces.Add(new(")"));
                        at++;
                        break;
                    case '*' or '+' or '?':
                    case '{' when Interval() > 0:
                        Quantifier(atom);
                        break;
                    case '$':
                        pieces.Add(new("(?m:$)"));
                        at++;
                        break;
                    case '^':
                        pieces.Add(new("(?m:^)"));
                        at++;
                        break;
                    case '.' or '|':
                        pieces.Add(new($"{unit}"));
                        atom = start;
                        at++;
                        break;
                    case '\\' when Anchor() is { } anchor:
                        pieces.Add(new(anchor));
                        atom = start;
                        at += 2;
                        break;
                    case '\\' when Escaped(inClass: false) is { } set:
                        pieces.Add(set);
                        atom = start;
                        break;
                    default:
                        var code = Literal();
                        // The long s is an s in another case, which .NET does not know.
                        if (ignoreCase && code is 's' or 'S')
                            pieces.Add(new("[s\u017F]"));
                        else
                            pieces.Add(
                                code > 0xFFFF
                                    ? new("", CodePointSet.Of((code, code)))
                                    : new(Regex.Escape($"{(char)code}"))
                            );
                        atom = start;
                        break;
                }
            }
        }

        private string? Anchor() =>
            Peek(1) switch
            {
                // .NET's own edges of words do not know letters beyond the basic plane.
                'b' => Edge("(?:(?<=W)(?!W)|(?<!W)(?=W))"),
                'B' => Edge("(?:(?<=W)(?=W)|(?<!W)(?!W))"),
                'A' => @"\A",
                'z' => @"\z",
                'Z' => @"\Z",
                'R' => @"(?>\r\n|[\n-\r\x85\u2028\u2029])",
                _ => null,
            };

        /// <summary>A pattern with W for a character of a word, whose last part is left to the caller.</summary>
        private string Edge(string shape)
        {
            var parts = shape.Split('W');
            foreach (var part in parts[..^1])
            {
                pieces.Add(new(part));
                pieces.Add(new("", CodePointSet.Word));
            }
            return parts[^1];
        }

        /// <summary>Where an interval like {2,3} ends, or 0 where the brace is a character.</summary>
        private int Interval()
        {
            var match = Regex.Match(pattern[at..], @"^\{(\d+(,\d*)?|,\d+)\}");
            return match.Success ? at + match.Length : 0;
        }

        private void Quantifier(int atom)
        {
            var interval = pattern[at] == '{';
            var end = interval ? Interval() : at + 1;
            pieces.Add(new(pattern[at..end].Replace("{,", "{0,")));
            at = end;
            if (Peek(0) == '?')
            {
                pieces.Add(new("?"));
                at++;
            }
            else if (Peek(0) == '+')
            {
                // X{n}+ is a repeated repeat there; after *, + and ? the second plus is possessive.
                pieces.Insert(atom, new(interval ? "(?:" : "(?>"));
                pieces.Add(new(interval ? ")+" : ")"));
                at++;
            }
        }

        private string Head()
        {
            if (Peek(1) != '?')
            {
                at++;
                return "(";
            }
            foreach (
                var (head, ours) in ((string, string)[])
                    [
                        ("(?:", "(?:"),
                        ("(?=", "(?="),
                        ("(?!", "(?!"),
                        ("(?>", "(?>"),
                        ("(?<=", "(?<="),
                        ("(?<!", "(?<!"),
                        ("(?i:", "(?i:"),
                        ("(?i)", "(?i)"),
                        ("(?-i)", "(?-i)"),
                        ("(?m:", "(?s:"),
                    ]
            )
            {
                if (string.CompareOrdinal(pattern, at, head, 0, head.Length) != 0)
                    continue;
                at += head.Length;
                return ours;
            }
            throw new ArgumentException($"the group {pattern[at..Math.Min(pattern.Length, at + 4)]}");
        }

        private char Peek(int ahead) => at + ahead < pattern.Length ? pattern[at + ahead] : '\0';

        /// <summary>A class, from its bracket to behind the closing one.</summary>
        private Piece Class(bool ignoreCase, int depth = 1)
        {
            CheckDepth(depth);
            at++;
            var negated = Peek(0) == '^';
            if (negated)
                at++;
            var body = at;
            var (all, ranges, plain, first) = ((CodePointSet?)null, new List<(int, int)>(), true, true);
            for (; at < pattern.Length && (pattern[at] != ']' || first); first = false)
            {
                if (pattern[at] == '[')
                {
                    plain = false;
                    ranges.AddRange((Posix() ?? Whole(Class(ignoreCase, depth + 1))).Ranges);
                }
                else if (Peek(0) == '&' && Peek(1) == '&')
                {
                    plain = false;
                    all = Part();
                    ranges.Clear();
                    at += 2;
                }
                else if (pattern[at] == '\\' && Escaped(inClass: true) is { } escaped)
                {
                    // What is outside a class in a class: its stand-ins would be taken for no letters.
                    plain &= escaped.Text.Length > 0 && !escaped.Negated;
                    ranges.AddRange(Whole(escaped).Ranges);
                }
                else
                {
                    var (from, to) = (Literal(), 0);
                    // A dash at the end or before a class is itself.
                    if (Peek(0) == '-' && Peek(1) is not (']' or '[' or '\0'))
                    {
                        var dash = at++;
                        if (pattern[at] == '\\' && Escaped(inClass: true) is not null)
                            (at, to) = (dash, from);
                        else
                            to = Literal();
                        if (to < from)
                            throw new ArgumentException("a range that ends before it begins");
                    }
                    else
                    {
                        to = from;
                    }
                    ranges.Add((from, to));
                    plain &= to < 0xD800;
                }
            }
            if (at == pattern.Length)
                throw new ArgumentException("an open '['");
            var text = pattern[body..at++];
            var set = Part();
            if (ignoreCase && (set.Contains('s') || set.Contains('S')))
                (set, plain) = (set.Or(CodePointSet.Of((0x17F, 0x17F))), false);
            return plain && !text.Contains(@"\x{") ? new(text, set, negated) : new("", negated ? set.Not() : set);

            // What the class has so far: the part that is being read and, after &&, those before it.
            CodePointSet Part() => CodePointSet.Of(ranges) is var last && all is not null ? all.And(last) : last;

            static CodePointSet Whole(Piece piece) => piece.Negated ? piece.Set!.Not() : piece.Set!;
        }

        private static void CheckDepth(int depth)
        {
            if (depth > Budget.Depth)
                throw new ArgumentException($"more than {Budget.Depth} groups or classes, one in the other");
        }

        private CodePointSet? Posix()
        {
            var match = Regex.Match(pattern[at..], @"^\[:(\^?)([a-zA-Z]+):\]");
            if (!match.Success)
                return null;
            at += match.Length;
            var name = match.Groups[2].Value;
            // In brackets, punctuation has symbols too.
            var set =
                CodePointSet.Named(name)?.Or(CodePointSet.Named(name == "punct" ? "s" : name)!)
                ?? throw new ArgumentException($"the character class {match.Value}");
            return match.Groups[1].Length > 0 ? set.Not() : set;
        }

        /// <summary>The set that an escape stands for, or null for one that is a character.</summary>
        private Piece? Escaped(bool inClass)
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
            var (start, negated) = (at, char.IsUpper(kind));
            at += 2;
            if (name.Length == 0)
            {
                var close = Peek(0) == '{' ? pattern.IndexOf('}', at) : -1;
                if (close < 0)
                    throw new ArgumentException($"the escape \\{kind}");
                name = pattern[(at + 1)..close];
                plain = name.Length <= 2 && char.IsUpper(name[0]) && name != "LC";
                at = close + 1;
                if (name.StartsWith('^'))
                    (name, negated) = (name[1..], !negated);
            }
            var set =
                (
                    !inClass && name.Equals("word", StringComparison.OrdinalIgnoreCase)
                        ? CodePointSet.Word
                        : CodePointSet.Named(name)
                ) ?? throw new ArgumentException($"the character class {pattern[start..at]}");
            // As a name, .NET would find every stand-in in a set of surrogates.
            plain &= !set.Contains(0xD800);
            return plain
                ? new(
                    char.ToLowerInvariant(kind) == 'p' ? $@"\p{{{name}}}" : $"\\{char.ToLowerInvariant(kind)}",
                    set,
                    negated
                )
                : new("", negated ? set.Not() : set);
        }

        /// <summary>One character, as it stands or escaped.</summary>
        private int Literal()
        {
            if (pattern[at] != '\\')
                return Plain();
            var kind = Peek(1);
            if (kind == '\0')
                throw new ArgumentException("a backslash at the end");
            at += 2;
            switch (kind)
            {
                case 'n':
                    return '\n';
                case 'r':
                    return '\r';
                case 't':
                    return '\t';
                case 'f':
                    return '\f';
                case 'v':
                    return '\v';
                case 'a':
                    return '\a';
                case 'e':
                    return '\u001B';
                case 'u':
                    return Number(4);
                case 'x' when Peek(0) == '{':
                    var close = pattern.IndexOf('}', at);
                    if (close < 0)
                        throw new ArgumentException("an open '{'");
                    at++;
                    var code = Number(close - at);
                    at++;
                    return code;
                case 'x':
                    return Number(2);
                default:
                    at--;
                    return char.IsAsciiLetterOrDigit(kind)
                        ? throw new ArgumentException($"the escape \\{kind}")
                        : Plain();
            }
        }

        private int Plain()
        {
            Rune.DecodeFromUtf16(pattern.AsSpan(at), out var rune, out var length);
            at += length;
            return rune.Value;
        }

        private int Number(int digits)
        {
            if (
                at + digits > pattern.Length
                || !int.TryParse(
                    pattern.AsSpan(at, digits),
                    NumberStyles.HexNumber,
                    CultureInfo.InvariantCulture,
                    out var code
                )
                || code > 0x10FFFF
            )
                throw new ArgumentException("a character's number");
            at += digits;
            return code;
        }
    }
}
