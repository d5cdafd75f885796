using System.Text.RegularExpressions;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>Reads a class like <c>[a-z&amp;&amp;[^aeiou]]</c>.</summary>
/// <param name="cursor">Stands at the bracket.</param>
/// <param name="ignoreCase">Whether letters stand for both cases.</param>
/// <param name="depth">How many classes it is in, itself included.</param>
internal sealed class CharacterClass(PatternCursor cursor, bool ignoreCase, int depth)
{
    private readonly List<(int From, int To)> ranges = [];
    private CodePointSet? before; // the parts before the last &&
    private bool plain = true; // whether .NET understands the text alike

    /// <summary>Reads from the bracket to behind the closing one.</summary>
    public static PatternPiece Read(PatternCursor cursor, bool ignoreCase) =>
        new CharacterClass(cursor, ignoreCase, 1).Read();

    private PatternPiece Read()
    {
        OnigurumaPattern.CheckDepth(depth);
        cursor.At++;
        var negated = cursor.Peek(0) == '^';
        if (negated)
            cursor.At++;
        var body = cursor.At;
        for (var first = true; !cursor.Ended && (cursor.Peek(0) != ']' || first); first = false)
            ReadItem();
        if (cursor.Ended)
            throw new ArgumentException("an open '['");
        var text = cursor.Between(body, cursor.At++);
        var set = SoFar();
        if (ignoreCase && (set.Contains('s') || set.Contains('S')))
            (set, plain) = (set.Or(CodePointSet.Of((0x17F, 0x17F))), false);
        return plain && !text.Contains(@"\x{") ? new(text, set, negated) : new("", negated ? set.Not() : set);
    }

    private void ReadItem()
    {
        if (cursor.Peek(0) == '[')
        {
            plain = false;
            var inner = Posix() ?? Whole(new CharacterClass(cursor, ignoreCase, depth + 1).Read());
            ranges.AddRange(inner.Ranges);
        }
        else if (cursor.Peek(0) == '&' && cursor.Peek(1) == '&')
        {
            plain = false;
            before = SoFar();
            ranges.Clear();
            cursor.At += 2;
        }
        else if (cursor.Peek(0) == '\\' && cursor.Escaped(inClass: true) is { } escaped)
        {
            // What is outside a class in a class: its stand-ins would be taken for no letters.
            plain &= escaped.Text.Length > 0 && !escaped.Negated;
            ranges.AddRange(Whole(escaped).Ranges);
        }
        else
        {
            var (from, to) = Range();
            ranges.Add((from, to));
            plain &= to < 0xD800;
        }
    }

    /// <summary>A character, or a range of them.</summary>
    private (int From, int To) Range()
    {
        var from = cursor.Literal();
        // A dash at the end or before a class is itself.
        if (cursor.Peek(0) != '-' || cursor.Peek(1) is ']' or '[' or '\0')
            return (from, from);
        var dash = cursor.At++;
        if (cursor.Peek(0) == '\\' && cursor.Escaped(inClass: true) is not null)
        {
            cursor.At = dash;
            return (from, from);
        }
        var to = cursor.Literal();
        return to < from ? throw new ArgumentException("a range that ends before it begins") : (from, to);
    }

    /// <summary>The characters so far: the part that is being read and, after &amp;&amp;, those before it.</summary>
    private CodePointSet SoFar() => CodePointSet.Of(ranges) is var last && before is not null ? before.And(last) : last;

    private static CodePointSet Whole(PatternPiece piece) => piece.Negated ? piece.Set!.Not() : piece.Set!;

    private CodePointSet? Posix()
    {
        var match = Regex.Match(cursor.Rest, @"^\[:(\^?)([a-zA-Z]+):\]");
        if (!match.Success)
            return null;
        cursor.At += match.Length;
        var name = match.Groups[2].Value;
        // In brackets, punctuation has symbols too.
        var set =
            CodePointSet.Named(name)?.Or(CodePointSet.Named(name == "punct" ? "s" : name)!)
            ?? throw new ArgumentException($"the character class {match.Value}");
        return match.Groups[1].Length > 0 ? set.Not() : set;
    }
}
