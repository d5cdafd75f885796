using System.Buffers;
using System.Globalization;
using System.Text;

namespace Memopt.Text.Tokenizers;

/// <summary>The four Unicode normalization forms. Own tables, because .NET normalizes nothing in invariant
/// globalization.</summary>
internal static class UnicodeForms
{
    private const int HangulBase = 0xAC00,
        LeadBase = 0x1100,
        VowelBase = 0x1161,
        TailBase = 0x11A7;
    private const int LeadCount = 19,
        VowelCount = 21,
        TailCount = 28,
        HangulCount = LeadCount * VowelCount * TailCount;

    private static readonly Dictionary<int, byte> Classes = [];
    private static readonly Dictionary<int, int[]> Canonical = [];
    private static readonly Dictionary<int, int[]> Compatible = [];
    private static readonly Dictionary<(int, int), int> Pairs = [];

    static UnicodeForms()
    {
        using var reader = new StreamReader(
            typeof(UnicodeForms).Assembly.GetManifestResourceStream("normalization.txt")!
        );
        while (reader.ReadLine() is { } line)
        {
            if (line[0] == '#')
                continue;
            var fields = line.Split(';');
            var code = int.Parse(fields[0], NumberStyles.HexNumber);
            if (fields[1].Length > 0)
                Classes[code] = byte.Parse(fields[1]);
            if (fields[2].Length == 0)
                continue;
            var mapping = fields[2][1..].Split(' ').Select(hex => int.Parse(hex, NumberStyles.HexNumber)).ToArray();
            (fields[2][0] == '<' ? Compatible : Canonical)[code] = mapping;
            if (fields[2][0] == '=')
                Pairs[(mapping[0], mapping[1])] = code;
        }
        (Nfc, Nfd) = (new(compatible: false, compose: true), new(compatible: false, compose: false));
        (Nfkc, Nfkd) = (new(compatible: true, compose: true), new(compatible: true, compose: false));
    }

    // What a form may change; text without any of it is left as it is.
    private static readonly Movable Nfc,
        Nfd,
        Nfkc,
        Nfkd;

    private sealed class Movable
    {
        private readonly HashSet<int> beyond = [];
        private readonly SearchValues<char> basic;

        public Movable(bool compatible, bool compose)
        {
            var codes = new HashSet<int>(Classes.Keys);
            if (compatible)
                codes.UnionWith(Compatible.Keys);
            // Composed characters that are the pair's own spelling stay under composition; what may be a pair's second
            // half may move.
            var composed = Pairs.Values.ToHashSet();
            codes.UnionWith(
                Canonical.Keys.Where(code => !compose || !composed.Contains(code) || compatible && Reaches(code))
            );
            if (compose)
                codes.UnionWith(Pairs.Keys.Select(pair => pair.Item2));
            var hangul = compose
                ? Enumerable.Range(VowelBase, VowelCount).Concat(Enumerable.Range(TailBase, TailCount))
                : Enumerable.Range(HangulBase, HangulCount);
            codes.UnionWith(hangul);
            beyond.UnionWith(codes.Where(code => code > 0xFFFF));
            basic = SearchValues.Create([
                .. codes.Where(code => code <= 0xFFFF).Select(code => (char)code),
                .. beyond.Select(code => char.ConvertFromUtf32(code)[0]),
            ]);
        }

        private static bool Reaches(int code) =>
            Canonical.TryGetValue(code, out var parts) ? parts.Any(Reaches) : Compatible.ContainsKey(code);

        public bool AnyIn(ReadOnlySpan<char> text)
        {
            while (text.IndexOfAny(basic) is >= 0 and var at)
            {
                if (!char.IsHighSurrogate(text[at]))
                    return true;
                if (beyond.Contains(char.ConvertToUtf32(text[at], text[at + 1])))
                    return true;
                text = text[(at + 2)..];
            }
            return false;
        }
    }

    private record struct Unit(int Code, byte Class, int From, int To);

    public static NormalizedString Normalize(NormalizedString input, bool compatible, bool compose)
    {
        if (
            !(
                compatible
                    ? compose
                        ? Nfkc
                        : Nfkd
                    : compose
                        ? Nfc
                        : Nfd
            ).AnyIn(input.Text)
        )
            return input;

        var units = new List<Unit>(input.Length);
        var i = 0;
        while (i < input.Length)
        {
            var rune = input.RuneAt(i);
            Decompose(rune.Value, compatible, input.From(i), input.To(i + rune.Utf16SequenceLength - 1), units);
            i += rune.Utf16SequenceLength;
        }
        Order(units);
        if (compose)
            Compose(units);
        var output = new NormalizedStringBuilder(input.Budget);
        foreach (var unit in units)
            output.Append(new Rune(unit.Code), unit.From, unit.To);
        return output.Build();
    }

    private static void Decompose(int code, bool compatible, int from, int to, List<Unit> units)
    {
        if (code - HangulBase is >= 0 and < HangulCount)
        {
            var index = code - HangulBase;
            units.Add(new(LeadBase + index / (VowelCount * TailCount), 0, from, to));
            units.Add(new(VowelBase + index % (VowelCount * TailCount) / TailCount, 0, from, to));
            if (index % TailCount > 0)
                units.Add(new(TailBase + index % TailCount, 0, from, to));
        }
        else if (
            Canonical.TryGetValue(code, out var mapping) || (compatible && Compatible.TryGetValue(code, out mapping))
        )
        {
            foreach (var part in mapping)
                Decompose(part, compatible, from, to, units);
        }
        else
        {
            units.Add(new(code, Classes.GetValueOrDefault(code), from, to));
        }
    }

    private static void Order(List<Unit> units)
    {
        for (var i = 0; i < units.Count; i++)
        {
            if (units[i].Class == 0)
                continue;
            var end = i;
            while (end < units.Count && units[end].Class != 0)
                end++;
            if (end - i > 1)
            {
                var sorted = units.GetRange(i, end - i).OrderBy(unit => unit.Class).ToList(); // a stable sort
                for (var k = 0; k < sorted.Count; k++)
                    units[i + k] = sorted[k];
            }
            i = end;
        }
    }

    private static void Compose(List<Unit> units)
    {
        var (kept, starter, lastClass) = (0, -1, -1);
        for (var i = 0; i < units.Count; i++)
        {
            var unit = units[i];
            if (starter >= 0 && lastClass < unit.Class && Pair(units[starter].Code, unit.Code) is { } code)
            {
                var into = units[starter];
                units[starter] = new(code, 0, Math.Min(into.From, unit.From), Math.Max(into.To, unit.To));
                continue;
            }
            if (unit.Class == 0)
                (starter, lastClass) = (kept, -1);
            else
                lastClass = unit.Class;
            units[kept++] = unit;
        }
        units.RemoveRange(kept, units.Count - kept);
    }

    private static int? Pair(int first, int second)
    {
        if (first - LeadBase is >= 0 and < LeadCount && second - VowelBase is >= 0 and < VowelCount)
            return HangulBase + ((first - LeadBase) * VowelCount + second - VowelBase) * TailCount;
        if (
            first - HangulBase is >= 0 and < HangulCount
            && (first - HangulBase) % TailCount == 0
            && second - TailBase is > 0 and < TailCount
        )
            return first + second - TailBase;
        return Pairs.TryGetValue((first, second), out var code) ? code : null;
    }
}
