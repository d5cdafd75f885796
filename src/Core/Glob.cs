using System.Text;
using System.Text.RegularExpressions;

namespace Memopt.Core;

/// <summary>Globs over paths with slashes: <c>*</c> and <c>?</c> within a name, <c>**</c> over folders, <c>[…]</c> one
/// of some characters.</summary>
internal static class Glob
{
    private const int Longest = 4_096;

    public static bool Is(string text) => text.AsSpan().IndexOfAny("*?[") >= 0;

    public static Regex Of(string glob)
    {
        if (glob.Length > Longest)
            throw new UserFault(
                "A glob is too long.",
                found: $"{glob.Length:N0} characters, at most {Longest:N0}",
                next: "name a folder"
            );
        var form = new StringBuilder("^");
        for (var i = 0; i < glob.Length; i++)
        {
            var end = glob[i] == '[' ? glob.IndexOf(']', i + 2 <= glob.Length ? i + 1 : i) : -1;
            if (string.CompareOrdinal(glob, i, "**/", 0, 3) == 0)
                (_, i) = (form.Append("(?:.*/)?"), i + 2);
            else if (string.CompareOrdinal(glob, i, "**", 0, 2) == 0)
                (_, i) = (form.Append(".*"), i + 1);
            else if (end > i + 1)
                (_, i) = (
                    form.Append('[')
                        .Append(glob[i + 1] == '!' ? "^" : "")
                        .Append(Regex.Escape(glob[(glob[i + 1] == '!' ? i + 2 : i + 1)..end]))
                        .Append(']'),
                    end
                );
            else
                form.Append(
                    glob[i] switch
                    {
                        '*' => "[^/]*",
                        '?' => "[^/]",
                        var other => Regex.Escape(other.ToString()),
                    }
                );
        }
        try
        {
            // A data set's card may name any glob: no time that grows with the powers of its stars.
            return new(form.Append('$').ToString(), RegexOptions.CultureInvariant | RegexOptions.NonBacktracking);
        }
        catch (Exception e) when (e is ArgumentException or NotSupportedException)
        {
            throw new UserFault("A glob is not understood.", found: glob, next: "write ranges in order, [a-z]", e);
        }
    }
}
