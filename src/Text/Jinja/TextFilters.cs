using System.Text;

namespace Memopt.Text.Jinja;

/// <summary>Filters of texts.</summary>
internal static class TextFilters
{
    public static Dictionary<string, Filter> Table { get; } =
        new()
        {
            ["capitalize"] = call => Strings.Capitalize(call.Text()),
            ["center"] = call => Strings.Center(call.Text(), call.Whole(0, "width", 80), ' '),
            ["e"] = call => Escape(call.Text()),
            ["escape"] = call => Escape(call.Text()),
            ["forceescape"] = call => Escape(call.Text()),
            ["format"] = call => Formats.Percent(call.Text(), call.Given),
            ["indent"] = Indent,
            ["lower"] = call => CaseMapping.Lower(call.Text()),
            ["replace"] = Replace,
            ["safe"] = call => call.Text(),
            ["string"] = call => call.Text(),
            ["title"] = call => Strings.Title(call.Text(), jinja: true),
            ["trim"] = call => Strings.Strip(call.Text(), call.Argument(0, "chars") as string, left: true, right: true),
            ["truncate"] = Truncate,
            ["upper"] = call => CaseMapping.Upper(call.Text()),
            ["urlencode"] = EncodeUrl,
            ["wordcount"] = call => Words(call.Text()),
        };

    private static string Replace(FilterCall call) =>
        Strings.Replace(
            call.Text(),
            Values.Print(call.Argument(0, "old")),
            Values.Print(call.Argument(1, "new")),
            call.Whole(2, "count", -1)
        );

    private static string Escape(string text) =>
        new[] { ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;") }.Aggregate(
            text,
            (current, pair) => Strings.Replace(current, pair.Item1, pair.Item2, -1)
        );

    private static string Indent(FilterCall call)
    {
        var (width, first, blank) = (call.Argument(0, "width", 4L), call.Flag(1, "first"), call.Flag(2, "blank"));
        var margin = width is string given ? given : new string(' ', (int)Math.Clamp(Values.Whole(width), 0, 1000));
        return RenderCost.Join(
            "\n",
            Strings
                .Parts(call.Text(), "\n")
                .Select((line, index) => (index == 0 ? first : blank || line.Length > 0) ? margin + line : line)
        );
    }

    private static string Truncate(FilterCall call)
    {
        var (text, end) = (call.Text(), Values.Print(call.Argument(2, "end", "...")));
        var length = (double)call.Whole(0, "length", 255);
        var letters = Values.Items(text);
        if (letters.Count <= length + call.Whole(3, "leeway", 5))
            return text;
        var kept = string.Concat(letters.Take((int)Math.Clamp(length - end.Length, 0, letters.Count)));
        return (call.Flag(1, "killwords") || !kept.Contains(' ') ? kept : kept[..kept.LastIndexOf(' ')]) + end;
    }

    private static long Words(string text)
    {
        var (count, within) = (0L, false);
        foreach (var rune in text.EnumerateRunes())
        {
            var belongs = Rune.IsLetter(rune) || Rune.IsNumber(rune) || rune.Value == '_';
            if (belongs && !within)
                count++;
            within = belongs;
        }
        return count;
    }

    private static string EncodeUrl(FilterCall call) =>
        call.Value is not (List<object?> or DictValue)
            ? Escaped(call.Text()).Replace("%2F", "/")
            : RenderCost.Join(
                "&",
                (call.Value is DictValue dict ? ListFilters.Pairs(dict) : call.Items()).Select(pair =>
                    RenderCost.Join(
                        "=",
                        Values.Items(pair).Select(entry => Escaped(Values.Print(entry)).Replace("%20", "+"))
                    )
                )
            );

    private static string Escaped(string text)
    {
        RenderCost.Fit(9L * text.Length); // three bytes a character, three characters a byte
        return Uri.EscapeDataString(text);
    }
}
