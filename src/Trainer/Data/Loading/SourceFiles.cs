using Memopt.Hub;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data.Loading;

/// <summary>A source with its files, in the order of their rows.</summary>
internal sealed record SourceFiles(DataSource Source, IReadOnlyList<DataFile> Files)
{
    /// <param name="source">Where rows come from.</param>
    /// <param name="folder">What its path is relative to.</param>
    /// <param name="located">Data sets from elsewhere that are here already.</param>
    public static SourceFiles Of(DataSource source, string folder, IReadOnlyDictionary<string, Snapshot> located) =>
        new(source, DataFiles.Of(source, folder, located));

    /// <summary>Each file with the source that it is read for.</summary>
    public IEnumerable<SourceFile> Each => Files.Select(file => new SourceFile(Source, file));
}
