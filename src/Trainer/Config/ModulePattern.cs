using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;

namespace Memopt.Trainer.Config;

/// <summary>A key of <c>rank_pattern</c> or <c>alpha_pattern</c>: a regular expression that fits a module's whole
/// name, or its end after a dot. It is PEFT's rule, <c>re.match(rf"(.*\.)?({key})$", module)</c>; of several keys that
/// fit, the first counts.
/// </summary>
internal static partial class ModulePattern
{
    /// <summary>Longest key, in characters, and most keys of one map. Keys come from strangers, and each is tried on
    /// each module.
    /// </summary>
    public const int Longest = 500,
        Most = 5_000;

    private static readonly TimeSpan patience = TimeSpan.FromSeconds(1);
    private static readonly ConcurrentDictionary<string, Regex?> known = new();

    // Plans ask for the same modules hundreds of times. Settings do not change once they are read.
    private static readonly ConditionalWeakTable<object, ConcurrentDictionary<string, string>> found = [];

    /// <summary>The value of the first key that fits a module, or the value that holds otherwise.</summary>
    public static T Of<T>(IReadOnlyDictionary<string, T> patterns, string module, T otherwise)
    {
        if (patterns.Count == 0)
            return otherwise;
        var key = found
            .GetOrCreateValue(patterns)
            .GetOrAdd(module, _ => patterns.Keys.FirstOrDefault(key => Fits(key, module)) ?? "");
        return key.Length > 0 ? patterns[key] : otherwise;
    }

    /// <summary>Whether a key, of which <see cref="Problem"/> knows none, fits a module.</summary>
    public static bool Fits(string key, string module) =>
        known.GetOrAdd(key, Compiled) is { } pattern
            ? pattern.Match(module) is { Success: true, Index: 0 }
            : IsEnd(key, module);

    /// <summary>A key that is a name; a dot of it stands for any character unless it is escaped.</summary>
    private static bool IsEnd(string key, string module)
    {
        var at = module.Length - 1;
        for (var i = key.Length - 1; i >= 0; i--, at--)
        {
            var escaped = key[i] == '.' && i > 0 && key[i - 1] == '\\';
            if (at < 0 || (key[i] != module[at] && (key[i] != '.' || escaped)))
                return false;
            i -= escaped ? 1 : 0;
        }
        return at < 0 || module[at] == '.';
    }

    /// <summary>Why a key cannot be used; null when it can.</summary>
    public static string? Problem(string key)
    {
        if (key.Length is 0 or > Longest)
            return $"has {key.Length} characters, not 1 to {Longest}";
        // Python and .NET read these differently.
        if (Foreign().Match(key) is { Success: true, Value: var part })
            return $"holds \"{part}\", which is not supported in such a key";
        try
        {
            Fits(key, "model.layers.0.self_attn.q_proj");
            return null;
        }
        catch (Exception e)
            when (e
                    is ArgumentException
                        or NotSupportedException
                        or RegexMatchTimeoutException
                        or InsufficientExecutionStackException
            )
        {
            return $"is not a regular expression that can be used: {e.Message}";
        }
    }

    // Most keys are names, which need no regular expression. An expression takes time in proportion to a module's name,
    // whatever it is: look-around and back-references are refused.
    private static Regex? Compiled(string key) =>
        Name().IsMatch(key)
            ? null
            : new(
                $@"(.*\.)?({key.Replace("(?P<", "(?<")})$",
                RegexOptions.NonBacktracking | RegexOptions.CultureInvariant,
                patience
            );

    [GeneratedRegex(@"^(\w|\\?\.)+\z", RegexOptions.CultureInvariant)]
    private static partial Regex Name();

    [GeneratedRegex(@"\{,|-\[|\(\?P=|\(\?P>|\\[pPkGzZA]", RegexOptions.CultureInvariant)]
    private static partial Regex Foreign();
}
