namespace Memopt.Trainer.Sources;

/// <summary>One source or several, in their order. In JSON: a source, or a list of them.</summary>
public sealed record DataSources(IReadOnlyList<DataSource> List)
{
    public static DataSources Of(string source) => new([DataSource.Parse(source)]);

    public bool Equals(DataSources? other) => other is not null && List.SequenceEqual(other.List);

    public override int GetHashCode() => List.Aggregate(0, HashCode.Combine);

    public override string ToString() => string.Join(", ", List);
}
