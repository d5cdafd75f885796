namespace Memopt.Tracking;

/// <summary>A named set of runs, which may be empty.</summary>
public sealed record Experiment
{
    /// <summary>Stays the same whatever else changes: "0" for the default one, then "1", "2", …</summary>
    public required string Id { get; init; }

    /// <summary>What people call it now.</summary>
    public required string Name { get; init; }

    /// <summary>What its runs say in <see cref="RunStart.Experiment"/>: the first name it had.</summary>
    public required string Key { get; init; }
    public DateTimeOffset Created { get; init; }
    public DateTimeOffset Updated { get; init; }

    /// <summary>Whether it is hidden, with its runs; nothing of it is gone.</summary>
    public bool Deleted { get; init; }
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();
}
