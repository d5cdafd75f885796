using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data.Formats;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data.Loading;

/// <summary>One reading of sources.</summary>
/// <param name="config">How rows become tokens, and which rows are for what.</param>
/// <param name="model">Makes tokens of text.</param>
internal sealed class DatasetLoader(DataConfig config, ChatEncoder model)
{
    /// <summary>Keeps the tokens of large files; null keeps none.</summary>
    public TokenCache? Cache { get; init; }

    /// <summary>Where chunks end. Files that fit into one are not kept.</summary>
    public int ChunkBytes { get; init; } = RowFile.ChunkBytes;

    public DataReports? Reports { get; init; }

    public CancellationToken Stop { get; init; }

    /// <param name="sources">With their files.</param>
    /// <param name="role">Which rows.</param>
    /// <param name="name">The sources as a user writes them.</param>
    /// <exception cref="UserFault">Rows cannot be trained on, or none is left.</exception>
    public Dataset Load(IReadOnlyList<SourceFiles> sources, DataRole role, string name)
    {
        var files = sources.SelectMany(source => source.Each).Distinct().ToList();
        var tokens =
            Cache is null || files.Sum(file => Size(file.File)) <= ChunkBytes
                ? Tokenize(files, name)
                : FindOrTokenize(Cache, files, name);
        var dataset = new DatasetBuilder(config, role, name);
        foreach (var source in sources)
            dataset.Add(source.Source, [.. source.Each.Select(file => tokens[file])]);
        return dataset.Build();
    }

    private Dictionary<SourceFile, FileTokens> Tokenize(List<SourceFile> files, string name)
    {
        var made = Tokenizer(files, name).Run();
        return files.ToDictionary(
            file => file,
            file => new FileTokens([.. made[file].Select(shard => shard.Shard)], Sha256.OfFile(file.File.Path, Stop))
        );
    }

    /// <summary>The tokens that the cache has, and those of the other files made now: by one process at a time, as the
    /// others wait and find them.</summary>
    private Dictionary<SourceFile, FileTokens> FindOrTokenize(TokenCache cache, List<SourceFile> files, string name)
    {
        var found = new CachedFiles(cache, files.ToDictionary(file => file, file => KeyOf(cache, file)));
        if (found.Find())
            return found.Tokens;
        using var held = cache.Lock(() => Reports?.Note("another process is tokenizing; waiting for it"), Stop);
        if (found.Find())
            return found.Tokens;
        cache.Tidy();
        foreach (var (file, shards) in Tokenizer(found.Missing, name, found).Run())
            found.Complete(file, shards);
        return found.Tokens;
    }

    private FileKey KeyOf(TokenCache cache, SourceFile file) =>
        new(
            cache.Hash(file.File, () => Reports?.Note($"{file.File.Path}: read once for its hash"), Stop),
            TokenCache.Recipe(model.Hash!, config, file.Source, file.File.Format)
        );

    private FileTokenizer Tokenizer(IReadOnlyList<SourceFile> files, string name, CachedFiles? kept = null) =>
        new(config, model, files)
        {
            Name = name,
            Kept = kept,
            ChunkBytes = ChunkBytes,
            Reports = Reports,
            Stop = Stop,
        };

    private static long Size(DataFile file)
    {
        try
        {
            return file.Size * (file.Compression is null && file.Format != DataFormat.Parquet ? 1 : 4);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new UserFault(
                $"The data file {file.Path} cannot be read.",
                error.Message,
                "check data.train and data.eval",
                error
            );
        }
    }
}
