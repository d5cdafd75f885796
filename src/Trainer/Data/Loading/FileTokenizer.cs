using System.Collections.Concurrent;
using System.Runtime.ExceptionServices;
using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data.Formats;

namespace Memopt.Trainer.Data.Loading;

/// <summary>Makes tokens of files' chunks, on all cores; goes no further than the chunk in which the twentieth bad row
/// is.</summary>
/// <param name="config">How rows become tokens.</param>
/// <param name="model">Makes tokens of text.</param>
/// <param name="files">The files.</param>
internal sealed class FileTokenizer(DataConfig config, ChatEncoder model, IReadOnlyList<SourceFile> files)
{
    /// <summary>A chunk of a file.</summary>
    /// <param name="File">Which of the files.</param>
    /// <param name="Number">Which of its chunks, from 0.</param>
    /// <param name="Chunk">Its rows; disposed of by who tokenizes them.</param>
    private readonly record struct Work(int File, int Number, Chunk Chunk);

    private readonly Remarks remarks = new();
    private readonly Dictionary<(int File, int Number), NamedShard> made = [];
    private readonly List<Problem> problems = [];
    private RowReader[] readers = [];
    private byte[][]? salts;
    private int bad,
        reused;

    /// <summary>The sources as a user writes them.</summary>
    public required string Name { get; init; }

    /// <summary>Where tokens are kept; null keeps none.</summary>
    public CachedFiles? Kept { get; init; }

    public int ChunkBytes { get; init; } = RowFile.ChunkBytes;

    public DataReports? Reports { get; init; }

    public CancellationToken Stop { get; init; }

    /// <summary>The shards of each file.</summary>
    /// <exception cref="UserFault">Rows cannot be trained on: all that were found, at once.</exception>
    public Dictionary<SourceFile, IReadOnlyList<NamedShard>> Run()
    {
        readers = [.. files.Select(file => new RowReader(model, config, file.Source.Columns, remarks, Stop))];
        salts = Kept is null ? null : [.. files.Select(Kept.Salt)];
        try
        {
            Parallel.ForEach(
                Partitioner.Create(Chunks(), EnumerablePartitionerOptions.NoBuffering),
                new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount, CancellationToken = Stop },
                Tokenize
            );
        }
        catch (AggregateException error)
        {
            ExceptionDispatchInfo.Throw(
                error.Flatten().InnerExceptions.FirstOrDefault(inner => inner is not OperationCanceledException)
                    ?? error.InnerExceptions[0]
            );
        }
        if (problems.Count > 0)
            throw RowProblems.Fault(problems, files.Select(file => file.File), Name);
        foreach (var line in remarks.Lines)
            Reports?.Note(line);
        if (reused > 0)
            Reports?.Note($"{reused:N0} of {made.Count:N0} parts were tokenized by a previous run");
        var byFile = made.OrderBy(entry => entry.Key.Number).ToLookup(entry => entry.Key.File, entry => entry.Value);
        return Enumerable
            .Range(0, files.Count)
            .ToDictionary(file => files[file], file => (IReadOnlyList<NamedShard>)[.. byFile[file]]);
    }

    private IEnumerable<Work> Chunks()
    {
        var (read, total) = (0L, files.Sum(file => file.File.Size));
        for (var file = 0; file < files.Count && Volatile.Read(ref bad) < RowProblems.Most; file++)
        {
            var (number, before, at) = (0, read, 0L);
            void Passed(long done)
            {
                Stop.ThrowIfCancellationRequested(); // a packed file may have much and no row
                at = done;
            }

            foreach (var chunk in RowFile.Read(files[file].File, ChunkBytes, Passed))
            {
                yield return new(file, number++, chunk);
                if (Kept is not null)
                    Reports?.Progress(before + at, total);
                if (Volatile.Read(ref bad) >= RowProblems.Most)
                    break;
            }
            read += files[file].File.Size;
        }
    }

    private void Tokenize(Work work)
    {
        using var chunk = work.Chunk;
        var name = salts is null ? "" : Convert.ToHexStringLower(chunk.Hash(salts[work.File]));
        var path = files[work.File].File.Path;
        var faults = new List<Problem>();
        var shard = Kept?.Cache.Shard(name);
        if (shard is not null)
            Interlocked.Increment(ref reused);
        else if (Shard(chunk, readers[work.File], path, faults) is { } bytes)
            shard = Kept is null ? TokenShard.Of(bytes) : Kept.Cache.Store(name, bytes);
        lock (made)
        {
            problems.AddRange(faults);
            Volatile.Write(ref bad, problems.Count);
            if (shard is not null)
                made[(work.File, work.Number)] = new(shard.At(chunk.FirstLine, path), name);
        }
    }

    /// <summary>The bytes of a chunk's shard; null when some of its rows are bad.</summary>
    private byte[]? Shard(Chunk chunk, RowReader reader, string path, List<Problem> faults)
    {
        var shard = new TokenShard.Builder();
        faults.AddRange(chunk.Faults.Select(fault => RowProblems.Of(fault.Message, path, fault.Line)));
        foreach (var text in chunk.Rows)
        {
            Stop.ThrowIfCancellationRequested();
            var line = chunk.FirstLine + text.Line;
            try
            {
                var (row, hash) = reader.Read(chunk[text], line);
                if (row is null)
                    shard.Count(rejected: 1);
                else
                    foreach (var (index, part) in Cut(row, shard).Index())
                        shard.Add(part, text.Line, hash, index);
            }
            catch (RowFault fault)
            {
                faults.Add(RowProblems.Of(fault.Message, path, line));
                if (faults.Count == RowProblems.Most)
                    break;
            }
            catch (PairFault fault)
            {
                throw Pairs(fault, path, line);
            }
        }
        return faults.Count > 0 ? null : shard.ToArray();
    }

    private static UserFault Pairs(PairFault fault, string path, int line) =>
        new(
            $"{path} cannot be trained on: {fault.Message}.",
            found: $"line {line}",
            next: $"dotnet memopt data preview {path} shows them; to train on the preferred answers alone, set "
                + $"\"columns\": {{\"completion\": \"chosen\"}}",
            inner: fault
        )
        {
            Problems = [RowProblems.Of(fault.Message, path, line)],
        };

    /// <summary>What a row becomes under data.maxLength and data.truncate.</summary>
    private IReadOnlyList<Row> Cut(Row row, TokenShard.Builder counts)
    {
        RowLength.CheckTrained(row);
        if (row.Ids.Length <= config.MaxLength)
            return [row];
        // A part in which nothing carries loss would teach nothing.
        var left = RowLength.Cut(row, config).Where(part => part.TargetCount > 0).ToList();
        if (left.Count == 0 && config.Truncate != Truncation.Drop)
            throw RowLength.NothingLeft(config);
        counts.Count(
            config.Truncate is Truncation.Left or Truncation.Right ? 1 : 0,
            config.Truncate == Truncation.Drop ? 1 : 0,
            config.Truncate == Truncation.Split ? 1 : 0
        );
        return left;
    }
}
