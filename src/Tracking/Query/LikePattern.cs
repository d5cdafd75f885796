namespace Memopt.Tracking;

/// <summary>A pattern of like: % stands for any characters, _ for one.</summary>
internal sealed record LikePattern(string Pattern, bool Insensitive)
{
    /// <summary>Goes back to the last % alone: at most so many steps as both lengths multiplied.</summary>
    public bool Matches(string text)
    {
        var (t, p, any, from) = (0, 0, -1, 0);
        while (t < text.Length)
        {
            if (p < Pattern.Length && Pattern[p] == '%')
                (any, from) = (p++, t);
            else if (p < Pattern.Length && (Pattern[p] == '_' || Same(text[t], Pattern[p])))
                (t, p) = (t + 1, p + 1);
            else if (any >= 0)
                (t, p) = (++from, any + 1);
            else
                return false;
        }
        return Pattern.AsSpan(p).TrimStart('%').Length == 0;
    }

    private bool Same(char a, char b) => a == b || Insensitive && char.ToUpperInvariant(a) == char.ToUpperInvariant(b);
}
