using System.Linq;
using System.Text;

namespace Memopt.Build;

/// <summary>Arguments as one text, which is what netstandard2.0 starts a process with.</summary>
internal static class CommandLineText
{
    /// <summary>An argument as programs take it apart again: quotes around it, and a backslash before quotes in it and
    /// before those backslashes that stand before a quote.</summary>
    public static string Quoted(string argument)
    {
        if (argument.Length > 0 && argument.All(c => char.IsLetterOrDigit(c) || "-_./=:".Contains(c)))
            return argument;
        var quoted = new StringBuilder("\"");
        var slashes = 0;
        foreach (var c in argument)
        {
            slashes = c == '\\' ? slashes + 1 : 0;
            if (c == '"')
                quoted.Append('\\', Trailing(quoted) + 1);
            quoted.Append(c);
        }
        return quoted.Append('\\', slashes).Append('"').ToString();

        static int Trailing(StringBuilder text)
        {
            var count = 0;
            while (count < text.Length && text[text.Length - 1 - count] == '\\')
                count++;
            return count;
        }
    }
}
