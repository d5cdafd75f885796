using System.Globalization;
using System.Text;

namespace Memopt.Text.Jinja;

/// <summary>The methods of Python's str, by name.</summary>
internal static class StringMethods
{
    private delegate object? StringMethod(
        string text,
        IReadOnlyList<object?> given,
        IReadOnlyDictionary<string, object?> named
    );

    private static readonly Dictionary<string, StringMethod> table = new()
    {
        ["center"] = (text, given, _) => Strings.Center(text, Width(given), Filler(given)),
        ["ljust"] = (text, given, _) => Formats.Pad(text, Width(given), Filler(given), '<'),
        ["rjust"] = (text, given, _) => Formats.Pad(text, Width(given), Filler(given), '>'),
        ["zfill"] = (text, given, _) => Formats.Pad(text, Width(given), '0', text.Length > 0 ? '=' : '>'),
        ["swapcase"] = (text, _, _) =>
            string.Concat(
                text.EnumerateRunes()
                    .Select(rune => Rune.IsUpper(rune) ? Rune.ToLowerInvariant(rune) : Rune.ToUpperInvariant(rune))
            ),
        ["casefold"] = (text, _, _) => text.ToLowerInvariant().Replace("ß", "ss").Replace('ς', 'σ'),
        ["index"] = (text, given, _) => Found(First(text, Required(given, 0, "index"))),
        ["rindex"] = (text, given, _) => Found(Last(text, Required(given, 0, "rindex"))),
        ["rpartition"] = (text, given, _) =>
            Search.Last(Required(given, 0, "rpartition"), text) is >= 0 and var at
                ? new TupleValue([text[..at], given[0], text[(at + Required(given, 0, "rpartition").Length)..]])
                : new TupleValue(["", "", text]),
        ["isascii"] = (text, _, _) => text.All(char.IsAscii),
        ["strip"] = (text, given, _) => Strings.Strip(text, Optional(given, 0), left: true, right: true),
        ["lstrip"] = (text, given, _) => Strings.Strip(text, Optional(given, 0), left: true, right: false),
        ["rstrip"] = (text, given, _) => Strings.Strip(text, Optional(given, 0), left: false, right: true),
        ["split"] = (text, given, named) =>
            Strings.Split(
                text,
                (given.Count > 0 ? given[0] : named.GetValueOrDefault("sep")) as string,
                (given.Count > 1 ? given[1] : named.GetValueOrDefault("maxsplit")) as long? ?? -1
            ),
        ["rsplit"] = (text, given, named) =>
            Strings.SplitRight(
                text,
                (given.Count > 0 ? given[0] : named.GetValueOrDefault("sep")) as string,
                (given.Count > 1 ? given[1] : named.GetValueOrDefault("maxsplit")) as long? ?? -1
            ),
        ["splitlines"] = (text, given, named) =>
            Strings.Lines(text, ends: Values.True(given.Count > 0 ? given[0] : named.GetValueOrDefault("keepends"))),
        ["partition"] = (text, given, _) =>
            Strings.Parts(text, Required(given, 0, "partition"), 1) is [var a, var b]
                ? new TupleValue([a, given[0], b])
                : new TupleValue([text, "", ""]),
        ["startswith"] = (text, given, _) =>
            Any(given, "startswith", part => text.StartsWith(part, StringComparison.Ordinal)),
        ["endswith"] = (text, given, _) =>
            Any(given, "endswith", part => text.EndsWith(part, StringComparison.Ordinal)),
        ["upper"] = (text, _, _) => CaseMapping.Upper(text),
        ["lower"] = (text, _, _) => CaseMapping.Lower(text),
        ["title"] = (text, _, _) => Strings.Title(text, jinja: false),
        ["capitalize"] = (text, _, _) => Strings.Capitalize(text),
        ["replace"] = (text, given, named) =>
            Strings.Replace(
                text,
                Required(given, 0, "replace"),
                Required(given, 1, "replace"),
                (given.Count > 2 ? given[2] : named.GetValueOrDefault("count")) as long? ?? -1
            ),
        ["find"] = (text, given, _) => First(text, Required(given, 0, "find")),
        ["rfind"] = (text, given, _) => Last(text, Required(given, 0, "rfind")),
        ["count"] = (text, given, _) => Strings.Occurrences(text, Required(given, 0, "count")),
        ["join"] = (text, given, _) =>
            RenderCost.Join(
                text,
                Values
                    .Items(given.Count > 0 ? given[0] : null)
                    .Select(item => item as string ?? throw new JinjaException($"join of {Values.TypeName(item)}"))
            ),
        ["format"] = (text, given, named) => Format(text, given, named),
        ["isdigit"] = (text, _, _) => IsDigit(text),
        ["isnumeric"] = (text, _, _) => IsDigit(text),
        ["isdecimal"] = (text, _, _) => IsDigit(text),
        ["isalpha"] = (text, _, _) => text.Length > 0 && text.EnumerateRunes().All(Rune.IsLetter),
        ["isalnum"] = (text, _, _) => text.Length > 0 && text.EnumerateRunes().All(Rune.IsLetterOrDigit),
        ["isspace"] = (text, _, _) => text.Length > 0 && text.All(char.IsWhiteSpace),
        ["isupper"] = (text, _, _) => Strings.IsCased(text, upper: true),
        ["islower"] = (text, _, _) => Strings.IsCased(text, upper: false),
        ["removeprefix"] = (text, given, _) =>
            text.StartsWith(Required(given, 0, "removeprefix"), StringComparison.Ordinal)
                ? text[Required(given, 0, "removeprefix").Length..]
                : text,
        ["removesuffix"] = (text, given, _) =>
            text.EndsWith(Required(given, 0, "removesuffix"), StringComparison.Ordinal)
                ? text[..^Required(given, 0, "removesuffix").Length]
                : text,
    };

    public static Callable? Of(string text, string name) =>
        table.TryGetValue(name, out var method) ? (given, named) => method(text, given, named) : null;

    private static long Width(IReadOnlyList<object?> given) => Values.Whole(given.Count > 0 ? given[0] : null);

    private static char Filler(IReadOnlyList<object?> given) =>
        given.Count < 2 ? ' '
        : given[1] is string { Length: 1 } fill ? fill[0]
        : throw new JinjaException("a filler of one character is needed");

    private static long Found(long at) => at >= 0 ? at : throw new JinjaException("substring not found");

    private static string? Optional(IReadOnlyList<object?> given, int at) =>
        given.Count > at ? given[at] as string : null;

    private static string Required(IReadOnlyList<object?> given, int at, string method) =>
        Optional(given, at) ?? throw new JinjaException($"{method} needs a str");

    private static bool Any(IReadOnlyList<object?> given, string method, Func<string, bool> holds)
    {
        if (given.Count == 0 || given[0] is not TupleValue several)
            return holds(Required(given, 0, method));
        return several.Any(part =>
        {
            var text = Values.Print(part);
            RenderCost.Spend(text.Length);
            return holds(text);
        });
    }

    private static long First(string text, string part) => CodePoints(text, new Search(part).In(text));

    private static long Last(string text, string part) => CodePoints(text, Search.Last(part, text));

    private static long CodePoints(string text, int at) => at < 0 ? -1 : text.AsSpan(0, at).EnumerateRunes().Count();

    private static long Count(this SpanRuneEnumerator runes)
    {
        var count = 0L;
        foreach (var _ in runes)
            count++;
        return count;
    }

    private static bool IsDigit(string text) => text.Length > 0 && text.EnumerateRunes().All(Rune.IsDigit);

    private static string Format(string text, IReadOnlyList<object?> given, IReadOnlyDictionary<string, object?> named)
    {
        var output = new StringBuilder();
        var next = 0;
        for (var i = 0; i < text.Length; i++)
        {
            if (text[i] is '{' or '}' && i + 1 < text.Length && text[i + 1] == text[i])
                output.Append(text[i++]);
            else if (text[i] == '{')
            {
                var close = text.IndexOf('}', i);
                var (field, spec) = (
                    close < 0 ? throw new JinjaException("a '{' without its '}'") : text[(i + 1)..close]
                ).Split(':', 2)
                    is [var head, var tail]
                    ? (head, tail)
                    : (text[(i + 1)..close], "");
                object? value;
                if (named.TryGetValue(field, out var found))
                    value = found;
                else if (field.Length == 0 && next < given.Count)
                    value = given[next++];
                else if (int.TryParse(field, NumberStyles.None, null, out var index) && index < given.Count)
                    value = given[index];
                else
                    throw new JinjaException($"the format field '{{{field}}}' is not supported");
                var made = Formats.Brace(value, spec);
                RenderCost.Spend(made.Length + field.Length + 1);
                RenderCost.Fit((long)output.Length + made.Length);
                output.Append(made);
                i = close;
            }
            else
                output.Append(text[i]);
        }
        return output.ToString();
    }
}
