using System.Text;
using System.Text.RegularExpressions;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>Oniguruma's spelling in .NET's, with the sets of characters left open until their stand-ins are
/// known.</summary>
internal sealed class OnigurumaPattern
{
    private const int LongestWritten = 1 << 20;

    // Heads of groups, as Oniguruma and .NET spell them.
    private static readonly (string Head, string Ours)[] heads =
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
    ];

    private readonly PatternCursor cursor;
    private readonly List<PatternPiece> pieces = [];
    private readonly Stack<(int Start, bool IgnoreCase)> groups = new();
    private bool ignoreCase;
    private int atom; // the first piece of what a quantifier repeats

    private OnigurumaPattern(string pattern) => cursor = new(pattern);

    /// <exception cref="ArgumentException">It has what is not supported.</exception>
    public static OnigurumaPattern Read(string pattern)
    {
        var read = new OnigurumaPattern(pattern);
        while (!read.cursor.Ended)
            read.ReadPiece();
        return read;
    }

    public IReadOnlyList<CodePointSet> Sets => [.. pieces.Select(piece => piece.Set).OfType<CodePointSet>()];

    /// <summary>The pattern as .NET has it.</summary>
    /// <param name="beyond">The stand-ins of characters beyond the basic plane, each from where its stretch
    /// begins.</param>
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
            var body = Body(piece.Text, set, beyond);
            if (output.Length + body.Length > LongestWritten)
                throw new ArgumentException("it stands for too long a pattern");
            if (body.Length > 0)
                output.Append(piece.Negated ? "[^" : "[").Append(body).Append(']');
            else
                output.Append(piece.Negated ? @"[\s\S]" : "(?!)");
        }
        return output.ToString();
    }

    /// <summary>What stands in the brackets of a class.</summary>
    private static StringBuilder Body(string text, CodePointSet set, List<(int From, char Unit)> beyond)
    {
        var body = new StringBuilder(text);
        if (body.Length == 0)
        {
            foreach (var (from, to) in set.Ranges.Where(range => range.From < 0xD800))
                body.Append($@"\u{from:X4}-\u{Math.Min(to, 0xD7FF):X4}");
            foreach (var (from, to) in set.Ranges.Where(range => range.To > 0xDFFF && range.From <= 0xFFFF))
                body.Append($@"\u{Math.Max(from, 0xE000):X4}-\u{Math.Min(to, 0xFFFF):X4}");
        }
        var units = beyond.Where(stretch => set.Contains(stretch.From)).Select(stretch => stretch.Unit).Distinct();
        foreach (var unit in units)
            body.Append($@"\u{(int)unit:X4}");
        return body;
    }

    private void ReadPiece()
    {
        var start = pieces.Count;
        switch (cursor.Peek(0))
        {
            case '(':
                OpenGroup(start);
                return;
            case ')':
                CloseGroup();
                return;
            case '*' or '+' or '?':
            case '{' when Interval() > 0:
                Quantifier();
                return;
            case '$':
                Take("(?m:$)");
                return;
            case '^':
                Take("(?m:^)");
                return;
            case '[':
                pieces.Add(CharacterClass.Read(cursor, ignoreCase));
                break;
            case '.':
                Take(".");
                break;
            case '|':
                Take("|");
                break;
            case '\\' when Anchor() is { } anchor:
                pieces.Add(new(anchor));
                cursor.At += 2;
                break;
            case '\\' when cursor.Escaped(inClass: false) is { } set:
                pieces.Add(set);
                break;
            default:
                pieces.Add(Literal());
                break;
        }
        atom = start;
    }

    private void Take(string ours)
    {
        pieces.Add(new(ours));
        cursor.At++;
    }

    private void OpenGroup(int start)
    {
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
    }

    private string Head()
    {
        if (cursor.Peek(1) != '?')
        {
            cursor.At++;
            return "(";
        }
        foreach (var (head, ours) in heads)
        {
            if (!cursor.IsAt(head))
                continue;
            cursor.At += head.Length;
            return ours;
        }
        throw new ArgumentException($"the group {cursor.Between(cursor.At, cursor.At + 4)}");
    }

    private void CloseGroup()
    {
        if (groups.Count == 0)
            throw new ArgumentException("a ')' too many");
        (atom, ignoreCase) = groups.Pop();
        Take(")");
    }

    /// <summary>Refuses groups or classes that are nested too deeply.</summary>
    public static void CheckDepth(int depth)
    {
        if (depth > Budget.Depth)
            throw new ArgumentException($"more than {Budget.Depth} groups or classes, one in the other");
    }

    private PatternPiece Literal()
    {
        var code = cursor.Literal();
        // The long s is an s in another case, which .NET does not know.
        if (ignoreCase && code is 's' or 'S')
            return new("[s\u017F]");
        return code > 0xFFFF ? new("", CodePointSet.Of((code, code))) : new(Regex.Escape($"{(char)code}"));
    }

    private string? Anchor() =>
        cursor.Peek(1) switch
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
        var match = Regex.Match(cursor.Rest, @"^\{(\d+(,\d*)?|,\d+)\}");
        return match.Success ? cursor.At + match.Length : 0;
    }

    private void Quantifier()
    {
        var interval = cursor.Peek(0) == '{';
        var end = interval ? Interval() : cursor.At + 1;
        pieces.Add(new(cursor.Between(cursor.At, end).Replace("{,", "{0,")));
        cursor.At = end;
        if (cursor.Peek(0) == '?')
        {
            Take("?");
        }
        else if (cursor.Peek(0) == '+')
        {
            // X{n}+ is a repeated repeat there; after *, + and ? the second plus is possessive.
            pieces.Insert(atom, new(interval ? "(?:" : "(?>"));
            Take(interval ? ")+" : ")");
        }
    }
}
