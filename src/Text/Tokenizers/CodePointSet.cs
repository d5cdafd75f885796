using System.Globalization;

namespace Memopt.Text.Tokenizers;

/// <summary>A set of code points, as a character class of a regular expression names them.</summary>
internal sealed class CodePointSet
{
    private const int Last = 0x10FFFF;

    private static readonly Lazy<Dictionary<UnicodeCategory, CodePointSet>> Categories = new(ReadCategories);
    private static readonly Lazy<Dictionary<string, CodePointSet>> Properties = new(() => ReadTable("properties.txt"));
    private static readonly Lazy<Dictionary<string, CodePointSet>> Reference = new(() => ReadTable("categories.txt"));

    // The categories' short names, in the order of UnicodeCategory.
    private static readonly string[] Codes =
        "lu ll lt lm lo mn mc me nd nl no zs zl zp cc cf cs co pc pd ps pe pi pf po sm sc sk so cn".Split(' ');

    private CodePointSet(List<(int From, int To)> ranges) => Ranges = ranges;

    /// <summary>In order, none touching another, ends included.</summary>
    public IReadOnlyList<(int From, int To)> Ranges { get; }

    public static CodePointSet Of(params IEnumerable<(int From, int To)> ranges)
    {
        var merged = new List<(int From, int To)>();
        foreach (var (from, to) in ranges.Order())
        {
            if (merged.Count > 0 && from <= merged[^1].To + 1)
                merged[^1] = (merged[^1].From, Math.Max(merged[^1].To, to));
            else
                merged.Add((from, to));
        }
        return new(merged);
    }

    public static CodePointSet Any => Of((0, Last));

    /// <summary>What <c>\w</c> matches outside of a class. Oniguruma counts the numerals of Latin-1 there, and not in
    /// <c>[\w]</c>.</summary>
    public static CodePointSet Word => Named("word")!.Or(Of((0xB2, 0xB3), (0xB9, 0xB9), (0xBC, 0xBE)));

    public bool Contains(int code)
    {
        var (low, high) = (0, Ranges.Count - 1);
        while (low <= high)
        {
            var middle = (low + high) / 2;
            if (code < Ranges[middle].From)
                high = middle - 1;
            else if (code > Ranges[middle].To)
                low = middle + 1;
            else
                return true;
        }
        return false;
    }

    public CodePointSet Or(CodePointSet other) => Of(Ranges.Concat(other.Ranges));

    public CodePointSet And(CodePointSet other) => Not().Or(other.Not()).Not();

    public CodePointSet Not()
    {
        var (rest, next) = (new List<(int, int)>(), 0);
        foreach (var (from, to) in Ranges)
        {
            if (from > next)
                rest.Add((next, from - 1));
            next = to + 1;
        }
        if (next <= Last)
            rest.Add((next, Last));
        return new(rest);
    }

    /// <summary>The characters of a category, a script or a POSIX class; null for a name that is none of
    /// these.</summary>
    public static CodePointSet? Named(string name)
    {
        name = string.Concat(name.ToLowerInvariant().Where(char.IsLetter));
        if (name.Length <= 2)
        {
            var belong = Codes.Index().Where(code => code.Item.StartsWith(name, StringComparison.Ordinal)).ToList();
            return belong.Count == 0
                ? null
                : Of(belong.SelectMany(code => Category((UnicodeCategory)code.Index).Ranges));
        }
        return name switch
        {
            "decimalnumber" => Named("nd"),
            "letter" => Named("l"),
            "mark" => Named("m"),
            "number" => Named("n"),
            "punctuation" => Named("p"),
            "symbol" => Named("s"),
            "separator" => Named("z"),
            "other" => Named("c"),
            "any" => Any,
            "assigned" => Named("cn")!.Not(),
            "alpha" => Named("alphabetic"),
            "digit" => Named("nd"),
            "alnum" => Named("alpha")!.Or(Named("nd")!),
            "word" => Named("alnum")!.Or(Named("m")!).Or(Named("pc")!),
            "space" => Of((9, 13), (0x85, 0x85)).Or(Named("z")!),
            "blank" => Of((9, 9)).Or(Named("zs")!),
            "upper" => Named("uppercase"),
            "lower" => Named("lowercase"),
            "punct" => Named("p"),
            "graph" => Named("space")!.Or(Named("cc")!).Or(Named("cs")!).Or(Named("cn")!).Not(),
            "print" => Named("graph")!.Or(Named("zs")!),
            "cntrl" => Named("cc"),
            "xdigit" => Of(('0', '9'), ('A', 'F'), ('a', 'f')),
            "ascii" => Of((0, 0x7F)),
            // The table knows more of Unicode than .NET, and than Oniguruma, does.
            _ => Properties.Value.GetValueOrDefault(name)?.And(Named("assigned")!)
                ?? (
                    Enum.TryParse<UnicodeCategory>(name, ignoreCase: true, out var category) ? Category(category) : null
                ),
        };
    }

    /// <summary>Characters that the reference takes for punctuation, mark, accent or unclean, by its own tables, which
    /// are older than .NET's.</summary>
    public static CodePointSet OfReference(string name) => Reference.Value[name];

    private static CodePointSet Category(UnicodeCategory category) =>
        Categories.Value.GetValueOrDefault(category) ?? Of();

    private static Dictionary<UnicodeCategory, CodePointSet> ReadCategories()
    {
        var found = new Dictionary<UnicodeCategory, List<(int, int)>>();
        for (int from = 0, to; from <= Last; from = to)
        {
            var category = CharUnicodeInfo.GetUnicodeCategory(from);
            to = from + 1;
            while (to <= Last && CharUnicodeInfo.GetUnicodeCategory(to) == category)
                to++;
            if (!found.TryGetValue(category, out var ranges))
                found[category] = ranges = [];
            ranges.Add((from, to - 1));
        }
        return found.ToDictionary(entry => entry.Key, entry => new CodePointSet(entry.Value));
    }

    private static Dictionary<string, CodePointSet> ReadTable(string resource)
    {
        var found = new Dictionary<string, CodePointSet>();
        using var reader = new StreamReader(typeof(CodePointSet).Assembly.GetManifestResourceStream(resource)!);
        while (reader.ReadLine() is { } line)
        {
            if (line[0] == '#')
                continue;
            var (name, ranges) = (line[..line.IndexOf(';')], line[(line.IndexOf(';') + 1)..]);
            found[string.Concat(name.ToLowerInvariant().Where(char.IsLetter))] = Of(
                ranges
                    .Split(' ')
                    .Select(range =>
                    {
                        var ends = range.Split('-').Select(end => int.Parse(end, NumberStyles.HexNumber)).ToList();
                        return (ends[0], ends[^1]);
                    })
            );
        }
        return found;
    }
}
