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
        MostSets = 1_000;
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
            var read = OnigurumaPattern.Read(pattern);
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
    /// <exception cref="UserFault">One match takes seconds, or all matches more than the budget.</exception>
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
}
