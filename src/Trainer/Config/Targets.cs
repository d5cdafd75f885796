namespace Memopt.Trainer.Config;

/// <summary>Either all linears or a list of module names. In JSON: the string "all-linear" or an array of
/// strings.</summary>
public sealed record Targets(IReadOnlyList<string> Names)
{
    public static Targets AllLinear { get; } = new([]);

    public bool All => Names.Count == 0;

    /// <summary>Whether a module is one of the targets: all linears but the head, or those whose name is or ends in a
    /// listed name.</summary>
    public bool Cover(string module) => All ? module != "lm_head" : Names.Any(name => Matches(module, name));

    /// <summary>PEFT's rule: the whole name, or its end after a dot.</summary>
    public static bool Matches(string module, string name) =>
        module == name || module.EndsWith("." + name, StringComparison.Ordinal);

    /// <summary>The shortest names that mean certain modules: the last part where every module of that name is meant,
    /// full names otherwise.</summary>
    /// <param name="modules">All modules.</param>
    /// <param name="meant">Whether one is meant.</param>
    internal static IEnumerable<string> NamesOf(IEnumerable<string> modules, Func<string, bool> meant) =>
        modules
            .GroupBy(name => name[(name.LastIndexOf('.') + 1)..])
            .SelectMany(group => group.All(meant) ? [group.Key] : group.Where(meant))
            .Order(StringComparer.Ordinal);

    public bool Equals(Targets? other) => other is not null && Names.SequenceEqual(other.Names);

    public override int GetHashCode() => Names.Aggregate(0, HashCode.Combine);
}
