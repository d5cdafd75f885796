using System.Text;

namespace Memopt.Text.Jinja;

/// <summary>What Python's str does with texts, for its methods and for filters.</summary>
internal static class Strings
{
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

    // Python's method puts the odd space left of a text of even length, its format right of all.
    public static string Center(string text, long width, char fill)
    {
        var count = text.EnumerateRunes().Count();
        width = Math.Max(0, width);
        var missing = Math.Max(0, width - count);
        return Formats.Pad(Formats.Pad(text, count + missing / 2 + (missing & width & 1), fill, '>'), width, fill, '<');
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

    /// <param name="text">What is split.</param>
    /// <param name="separator">Null splits at stretches of space.</param>
    /// <param name="most">Most places to split at; a negative number sets no limit.</param>
    public static List<object?> Split(string text, string? separator, long most)
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

    /// <summary>As Split, with the limit counted from the end.</summary>
    public static List<object?> SplitRight(string text, string? separator, long most)
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

    /// <summary>How often a text is in another; an empty one is before each character and at the end.</summary>
    public static long Occurrences(string text, string part) =>
        part.Length == 0 ? text.EnumerateRunes().Count() + 1L : new Search(part).All(text).LongCount();

    /// <param name="text">What is cut into lines.</param>
    /// <param name="ends">Whether each line keeps its end.</param>
    public static List<object?> Lines(string text, bool ends)
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
}
