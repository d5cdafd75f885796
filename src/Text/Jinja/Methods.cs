using System.Globalization;
using System.Text;

namespace Memopt.Text.Jinja;

/// <summary>The methods of Python's str and dict that change nothing.</summary>
internal static class Methods
{
    public static Callable? Of(DictValue dict, string name) =>
        name switch
        {
            "items" => (_, _) => dict.Select(pair => (object?)new TupleValue([pair.Key, pair.Value])).ToList(),
            "keys" => (_, _) => dict.Keys.ToList<object?>(),
            "values" => (_, _) => dict.Values.ToList(),
            "copy" => (_, _) => Values.Dict(dict.Select(pair => (pair.Key, pair.Value))),
            "get" => (given, _) =>
                given.Count > 0 && given[0] is { } key && dict.TryGetValue(key, out var value) ? value
                : given.Count > 1 ? given[1]
                : null,
            _ => null,
        };

    public static Callable? Of(List<object?> list, string name) =>
        name switch
        {
            "count" => (given, _) => (long)list.Count(item => Values.Same(item, given.Count > 0 ? given[0] : null)),
            "index" => (given, _) =>
                list.FindIndex(item => Values.Same(item, given.Count > 0 ? given[0] : null)) is >= 0 and var at
                    ? (long)at
                    : throw new JinjaException("index of a value that is not in the list"),
            "copy" when list is not TupleValue => (_, _) => list.ToList(),
            _ => null,
        };

    public static Callable? Of(string text, string name) =>
        name switch
        {
            "center" => (given, _) => Center(text, Width(given), Filler(given)),
            "ljust" => (given, _) => Formats.Pad(text, Width(given), Filler(given), '<'),
            "rjust" => (given, _) => Formats.Pad(text, Width(given), Filler(given), '>'),
            "zfill" => (given, _) => Formats.Pad(text, Width(given), '0', text.Length > 0 ? '=' : '>'),
            "swapcase" => (_, _) =>
                string.Concat(
                    text.EnumerateRunes()
                        .Select(rune => Rune.IsUpper(rune) ? Rune.ToLowerInvariant(rune) : Rune.ToUpperInvariant(rune))
                ),
            "casefold" => (_, _) => text.ToLowerInvariant().Replace("ß", "ss").Replace('ς', 'σ'),
            "index" => (given, _) => Found(First(text, Required(given, 0, name))),
            "rindex" => (given, _) => Found(Last(text, Required(given, 0, name))),
            "rpartition" => (given, _) =>
                Search.Last(Required(given, 0, name), text) is >= 0 and var at
                    ? new TupleValue([text[..at], given[0], text[(at + Required(given, 0, name).Length)..]])
                    : new TupleValue(["", "", text]),
            "isascii" => (_, _) => text.All(char.IsAscii),
            "strip" => (given, _) => Strip(text, Optional(given, 0), left: true, right: true),
            "lstrip" => (given, _) => Strip(text, Optional(given, 0), left: true, right: false),
            "rstrip" => (given, _) => Strip(text, Optional(given, 0), left: false, right: true),
            "split" => (given, named) =>
                Split(
                    text,
                    (given.Count > 0 ? given[0] : named.GetValueOrDefault("sep")) as string,
                    (given.Count > 1 ? given[1] : named.GetValueOrDefault("maxsplit")) as long? ?? -1
                ),
            "rsplit" => (given, named) =>
                SplitRight(
                    text,
                    (given.Count > 0 ? given[0] : named.GetValueOrDefault("sep")) as string,
                    (given.Count > 1 ? given[1] : named.GetValueOrDefault("maxsplit")) as long? ?? -1
                ),
            "splitlines" => (given, named) =>
                Lines(text, ends: Values.True(given.Count > 0 ? given[0] : named.GetValueOrDefault("keepends"))),
            "partition" => (given, _) =>
                Parts(text, Required(given, 0, name), 1) is [var a, var b]
                    ? new TupleValue([a, given[0], b])
                    : new TupleValue([text, "", ""]),
            "startswith" => (given, _) => Any(given, name, part => text.StartsWith(part, StringComparison.Ordinal)),
            "endswith" => (given, _) => Any(given, name, part => text.EndsWith(part, StringComparison.Ordinal)),
            "upper" => (_, _) => CaseMapping.Upper(text),
            "lower" => (_, _) => CaseMapping.Lower(text),
            "title" => (_, _) => Title(text, jinja: false),
            "capitalize" => (_, _) => Capitalize(text),
            "replace" => (given, named) =>
                Replace(
                    text,
                    Required(given, 0, name),
                    Required(given, 1, name),
                    (given.Count > 2 ? given[2] : named.GetValueOrDefault("count")) as long? ?? -1
                ),
            "find" => (given, _) => First(text, Required(given, 0, name)),
            "rfind" => (given, _) => Last(text, Required(given, 0, name)),
            "count" => (given, _) => Occurrences(text, Required(given, 0, name)),
            "join" => (given, _) =>
                RenderCost.Join(
                    text,
                    Values
                        .Items(given.Count > 0 ? given[0] : null)
                        .Select(item => item as string ?? throw new JinjaException($"join of {Values.TypeName(item)}"))
                ),
            "format" => (given, named) => Format(text, given, named),
            "isdigit" or "isnumeric" or "isdecimal" => (_, _) =>
                text.Length > 0 && text.EnumerateRunes().All(Rune.IsDigit),
            "isalpha" => (_, _) => text.Length > 0 && text.EnumerateRunes().All(Rune.IsLetter),
            "isalnum" => (_, _) => text.Length > 0 && text.EnumerateRunes().All(Rune.IsLetterOrDigit),
            "isspace" => (_, _) => text.Length > 0 && text.All(char.IsWhiteSpace),
            "isupper" => (_, _) => IsCased(text, upper: true),
            "islower" => (_, _) => IsCased(text, upper: false),
            "removeprefix" => (given, _) =>
                text.StartsWith(Required(given, 0, name), StringComparison.Ordinal)
                    ? text[Required(given, 0, name).Length..]
                    : text,
            "removesuffix" => (given, _) =>
                text.EndsWith(Required(given, 0, name), StringComparison.Ordinal)
                    ? text[..^Required(given, 0, name).Length]
                    : text,
            _ => null,
        };

    /// <summary>Whether there is a letter with case and all such letters have this one.</summary>
    public static bool IsCased(string text, bool upper)
    {
        var any = false;
        foreach (var rune in text.EnumerateRunes())
        {
            if (upper ? Rune.IsLower(rune) : Rune.IsUpper(rune))
                return false;
            any |= upper ? Rune.IsUpper(rune) : Rune.IsLower(rune);
        }
        return any;
    }

    private static long Width(IReadOnlyList<object?> given) => Values.Whole(given.Count > 0 ? given[0] : null);

    private static char Filler(IReadOnlyList<object?> given) =>
        given.Count < 2 ? ' '
        : given[1] is string { Length: 1 } fill ? fill[0]
        : throw new JinjaException("a filler of one character is needed");

    // Python's method puts the odd space left of a text of even length, its format right of all.
    public static string Center(string text, long width, char fill)
    {
        var count = text.EnumerateRunes().Count();
        width = Math.Max(0, width);
        var missing = Math.Max(0, width - count);
        return Formats.Pad(Formats.Pad(text, count + missing / 2 + (missing & width & 1), fill, '>'), width, fill, '<');
    }

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

    public static string Strip(string text, string? characters, bool left, bool right)
    {
        var dropped = characters?.ToHashSet();
        bool Drops(char unit) =>
            dropped?.Contains(unit) ?? char.IsWhiteSpace(unit) || unit is >= '\u001C' and <= '\u001F';
        var (start, end) = (0, text.Length);
        while (left && start < end && Drops(text[start]))
            start++;
        while (right && end > start && Drops(text[end - 1]))
            end--;
        return text[start..end];
    }

    private static List<object?> Split(string text, string? separator, long most)
    {
        if (separator == "")
            throw new JinjaException("an empty separator");
        if (separator is not null)
            return [.. Parts(text, separator, most)];
        var words = new List<object?>();
        var i = 0;
        while (i < text.Length)
        {
            while (i < text.Length && char.IsWhiteSpace(text[i]))
                i++;
            if (i >= text.Length)
                break;
            RenderCost.Fit(words.Count + 1, RenderCost.List);
            var start = i;
            if (most >= 0 && words.Count == most)
            {
                words.Add(text[start..]); // with the space at its end, as Python has it
                break;
            }
            while (i < text.Length && !char.IsWhiteSpace(text[i]))
                i++;
            words.Add(text[start..i]);
        }
        return words;
    }

    private static List<object?> SplitRight(string text, string? separator, long most)
    {
        if (separator == "")
            throw new JinjaException("an empty separator");
        if (separator is null)
            return
            [
                .. Split(Search.Backwards(text), null, most)
                    .Select(word => (object?)Search.Backwards((string)word!))
                    .Reverse(),
            ];
        var parts = Parts(text, separator);
        if (most < 0 || parts.Count - 1 <= most)
            return [.. parts];
        var head = parts.Count - (int)most;
        return [RenderCost.Join(separator, parts.Take(head)), .. parts.Skip(head)];
    }

    /// <summary>The parts of a text between the places of another, of which there may be a limit.</summary>
    public static List<string> Parts(string text, string separator, long most = -1)
    {
        if (separator.Length == 0)
            throw new JinjaException("an empty separator");
        var (parts, from) = (new List<string>(), 0);
        foreach (var at in new Search(separator).All(text))
        {
            if (parts.Count == most)
                break;
            RenderCost.Fit(parts.Count + 1, RenderCost.List);
            parts.Add(text[from..at]);
            from = at + separator.Length;
        }
        parts.Add(text[from..]);
        return parts;
    }

    private static long Occurrences(string text, string part) =>
        part.Length == 0 ? text.EnumerateRunes().Count() + 1L : new Search(part).All(text).LongCount();

    private static List<object?> Lines(string text, bool ends)
    {
        var (lines, start) = (new List<object?>(), 0);
        for (var i = 0; i < text.Length; i++)
        {
            if (
                text[i]
                is not (
                    '\n'
                    or '\r'
                    or '\v'
                    or '\f'
                    or (>= '\u001C' and <= '\u001E')
                    or '\u0085'
                    or '\u2028'
                    or '\u2029'
                )
            )
                continue;
            var end = i;
            if (text[i] == '\r' && i + 1 < text.Length && text[i + 1] == '\n')
                i++;
            RenderCost.Fit(lines.Count + 1, RenderCost.List);
            lines.Add(text[start..(ends ? i + 1 : end)]);
            start = i + 1;
        }
        if (start < text.Length)
            lines.Add(text[start..]);
        return lines;
    }

    public static string Replace(string text, string old, string with, long most)
    {
        if (old.Length == 0)
            return Between(text, with, most);
        var (output, done) = (new StringBuilder(), 0);
        foreach (var at in new Search(old).All(text))
        {
            if (most-- == 0)
                break;
            RenderCost.Fit((long)output.Length + at - done + with.Length);
            output.Append(text, done, at - done).Append(with);
            done = at + old.Length;
        }
        return done == 0 ? text : output.Append(text, done, text.Length - done).ToString();
    }

    // Python finds an empty str before each character and at the end.
    private static string Between(string text, string with, long most)
    {
        RenderCost.Fit((text.Length + 1L) * with.Length);
        var output = new StringBuilder();
        foreach (var rune in text.EnumerateRunes())
            output.Append(most-- != 0 ? with : "").Append(rune.ToString(), 0, rune.Utf16SequenceLength);
        return output.Append(most != 0 ? with : "").ToString();
    }

    /// <summary>Jinja's filter starts a word after a space, hyphen or bracket; Python's method after anything but a
    /// letter.</summary>
    public static string Title(string text, bool jinja)
    {
        var output = new StringBuilder(text.Length);
        var start = true;
        foreach (var unit in text)
        {
            output.Append(start ? char.ToUpperInvariant(unit) : char.ToLowerInvariant(unit));
            start = jinja ? char.IsWhiteSpace(unit) || unit is '-' or '(' or '{' or '[' or '<' : !char.IsLetter(unit);
        }
        return output.ToString();
    }

    public static string Capitalize(string text) =>
        text.Length == 0 ? text : char.ToUpperInvariant(text[0]) + text[1..].ToLowerInvariant();

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
