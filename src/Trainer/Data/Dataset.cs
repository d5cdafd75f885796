using System.Globalization;
using System.Runtime.ExceptionServices;
using System.Security.Cryptography;
using System.Text;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data.Formats;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data;

/// <summary>What rows are for.</summary>
internal enum DataRole
{
    Train,
    Eval,
}

/// <summary>Told what passes while data is read; from several threads, one at a time.</summary>
/// <param name="Note">Something that a user may want to know.</param>
/// <param name="Progress">Bytes of the source that are done, of all.</param>
internal sealed record DataReports(Action<string> Note, Action<long, long> Progress);

/// <summary>Rows as tokens and labels. They lie in memory encoded, or on disk when their file is large, and are decoded
/// when asked for.</summary>
/// <param name="Rows">In the order of the sources, files and lines.</param>
/// <param name="Hash">SHA-256 in hexadecimal: of the file, or of all that says which rows these are when there is more
/// to say.</param>
/// <param name="Counts">Of all rows that were read, those of the other side of a split too.</param>
/// <param name="Tokens">Tokens of the rows.</param>
/// <param name="TargetCount">Tokens of the rows that carry loss.</param>
/// <param name="Longest">Tokens of the longest row.</param>
internal sealed record Dataset(
    IReadOnlyList<Row> Rows,
    string Hash,
    DataCounts Counts,
    long Tokens,
    long TargetCount,
    int Longest
)
{
    private const int MostProblems = 20;

    /// <summary>Tokens of each row.</summary>
    public IEnumerable<int> Lengths => Enumerable.Range(0, Rows.Count).Select(Rows.LengthOf);

    /// <summary>Rows that were cut at the longest length.</summary>
    public long Truncated => Counts.Truncated;

    /// <summary>The facts of the data for a run's record, and for people.</summary>
    public IEnumerable<KeyValuePair<string, string>> Facts(string role) =>
        new Dictionary<string, long>
        {
            ["rows"] = Rows.Count,
            ["tokens"] = Tokens,
            ["trained"] = TargetCount,
            ["truncated"] = Counts.Truncated,
            ["dropped"] = Counts.Dropped,
            ["split"] = Counts.Split,
            ["rejected"] = Counts.Rejected,
        }.Select(fact => KeyValuePair.Create($"{role}.{fact.Key}", fact.Value.ToString(CultureInfo.InvariantCulture)));

    /// <summary>In one line: rows, tokens, and what was cut or left out.</summary>
    public string Summary(DataConfig config) =>
        $"{Rows.Count:N0} rows, {Tokens:N0} tokens, {TargetCount:N0} trained"
        + (Counts.Truncated > 0 ? $", {Counts.Truncated:N0} rows cut at {config.MaxLength}" : "")
        + (Counts.Dropped > 0 ? $", {Counts.Dropped:N0} rows longer than {config.MaxLength} left out" : "")
        + (Counts.Split > 0 ? $", {Counts.Split:N0} rows split at {config.MaxLength}" : "")
        + (Counts.Rejected > 0 ? $", {Counts.Rejected:N0} rows labelled false left out" : "");

    /// <summary>Refuses tokens that the model does not have.</summary>
    public void EnsureVocabulary(int vocabulary)
    {
        if (Counts.Highest < vocabulary)
            return;
        var at = Enumerable
            .Range(0, Rows.Count)
            .FirstOrDefault(
                at =>
                    Rows[at] is var row
                    && (row.Ids.Any(id => id >= vocabulary) || row.Labels.Any(label => label >= vocabulary)),
                -1
            );
        if (at < 0)
            return; // it is on the other side of a split
        var beyond = Rows[at];
        throw new UserFault(
            $"{(Rows as TokenRows)?.FileOf(at)}:{beyond.Line}: a token id is outside the model's vocabulary of "
                + $"{vocabulary}.",
            found: $"{Math.Max(beyond.Ids.Max(), beyond.Labels.Max())}",
            next: "tokenize with the model's own tokenizer"
        );
    }

    /// <summary>The files that a config's rows come from, those of data sets from elsewhere left out.</summary>
    public static IEnumerable<string> Files(ProjectConfig config) =>
        config
            .Settings.Data.Sources.Where(source => !source.Remote)
            .SelectMany(source => DataFiles.Of(source, config.Folder, config.Snapshots))
            .Select(file => file.Path)
            .Distinct();

    /// <summary>What is wrong with the first rows of each file that a config names, those of data sets from elsewhere
    /// left out.</summary>
    /// <param name="config">Names the files.</param>
    /// <param name="model">Whose tokens.</param>
    /// <param name="count">Rows looked at in each file.</param>
    public static IReadOnlyList<Problem> Sample(ProjectConfig config, ChatEncoder model, int count)
    {
        var problems = new List<Problem>();
        foreach (
            var list in new[] { config.Settings.Data.Train, config.Settings.Data.Eval }
                .OfType<DataSources>()
                .Select(sources => sources.List.Where(source => !source.Remote).ToList())
        )
        {
            var (before, found, remarks, cuts) = (problems.Count, false, new Remarks(), new Cuts());
            var files = list.SelectMany(source =>
                    DataFiles
                        .Of(source, config.Folder, config.Snapshots)
                        .Select(file => (file, new RowReader(model, config.Settings.Data, source.Columns, remarks)))
                )
                .ToList();
            foreach (var (file, reader) in files)
            {
                try
                {
                    foreach (var chunk in RowFile.Read(file, 1).Take(count))
                    {
                        using var one = chunk;
                        found |= one.Rows.Count > 0;
                        problems.AddRange(Look(one, reader, config.Settings.Data, file.Path, cuts));
                        if (problems.Count >= MostProblems)
                            return problems;
                    }
                }
                catch (UserFault fault)
                {
                    // A file that cannot be read at all.
                    problems.AddRange(
                        fault.Problems.Count > 0
                            ? fault.Problems
                            : [Unreadable($"{fault.Message} {fault.Found}; {fault.Next}", file.Path, 0)]
                    );
                }
            }
            if (!found && problems.Count == before && files is [var (first, _), ..])
                problems.Add(Unreadable("there are no rows", first.Path, 0));
            // One setting is wrong and not each row.
            if (cuts.Lost >= cuts.Rows * 0.9 && cuts.Lost > 0)
                problems.Add(
                    RunConfigFile.At(
                        config,
                        "data.maxLength",
                        $"leaves nothing to train on in {cuts.Lost:N0} of the {cuts.Rows:N0} rows that were looked at: "
                            + $"with {config.Settings.Data.MaxLength:N0} tokens no token that carries loss is left "
                            + $"of them; the longest has {cuts.Longest:N0} tokens",
                        "MEMOPT0007"
                    )
                );
            else
                problems.AddRange(cuts.Problems);
            if (files is [var (of, _), ..])
                problems.AddRange(
                    remarks.Lines.Select(line => new Problem("data", line, of.Path, Code: "MEMOPT0017", Warning: true))
                );
        }
        return problems;
    }

    /// <summary>Rows of a sample, and those of which data.maxLength leaves nothing to train on.</summary>
    private sealed class Cuts
    {
        public int Rows { get; set; }

        public int Lost { get; set; }

        public int Longest { get; set; }

        public List<Problem> Problems { get; } = [];
    }

    private static IEnumerable<Problem> Look(Chunk chunk, RowReader reader, DataConfig config, string path, Cuts cuts)
    {
        foreach (var fault in chunk.Faults)
            yield return Unreadable(fault.Message, path, fault.Line);
        foreach (var text in chunk.Rows)
        {
            var why = "";
            try
            {
                if (reader.Read(chunk[text], chunk.FirstLine + text.Line).Row is { } row)
                    Count(row, chunk.FirstLine + text.Line);
            }
            catch (Exception fault) when (fault is RowFault or PairFault)
            {
                why = fault.Message;
            }
            if (why.Length > 0)
                yield return Unreadable(why, path, chunk.FirstLine + text.Line);
        }

        void Count(Row row, int line)
        {
            Trainable(row);
            cuts.Rows++;
            if (Cut(row, config) is { Count: > 0 } left && left.Any(part => part.TargetCount > 0))
                return;
            (cuts.Lost, cuts.Longest) = (cuts.Lost + 1, Math.Max(cuts.Longest, row.Ids.Length));
            if (config.Truncate != Truncation.Drop)
                cuts.Problems.Add(Unreadable(CutOff(config).Message, path, line));
        }
    }

    /// <summary>
    /// The parts of a row that data.maxLength and data.truncate leave: itself, when it is short enough; none, when it
    /// is left out.
    /// </summary>
    private static IReadOnlyList<Row> Cut(Row row, DataConfig config)
    {
        var (longest, length) = (config.MaxLength, row.Ids.Length);
        return length <= longest
            ? [row]
            : config.Truncate switch
            {
                Truncation.Drop => [],
                Truncation.Right => [Part(0, longest)],
                Truncation.Left => [Part(length - longest, length)],
                _ =>
                [
                    .. Enumerable
                        .Range(0, (length + longest - 1) / longest)
                        .Select(part => Part(part * longest, Math.Min(length, (part + 1) * longest))),
                ],
            };

        Row Part(int from, int to) => new(row.Ids[from..to], row.Labels[from..to], row.Line);
    }

    private static RowFault CutOff(DataConfig config) =>
        new("all tokens that carry loss are cut off", $"the row is longer than data.maxLength = {config.MaxLength}");

    private static void Trainable(Row row)
    {
        if (row.TargetCount == 0)
            throw new RowFault(
                "no token of this row carries loss",
                "it needs an assistant's turn, a completion, or labels other than -100 after the first"
            );
    }

    private static Problem Unreadable(string why, string path, int line) =>
        new("data", why, path, line, Code: "MEMOPT0007");

    /// <summary>The first rows of training data that is made of preference pairs, each answer as a row; none when it is
    /// other data.</summary>
    /// <exception cref="UserFault">A row cannot be read.</exception>
    public static IReadOnlyList<(Row Chosen, Row Rejected)> Pairs(ProjectConfig config, ChatEncoder model, int count)
    {
        var source = config.Settings.Data.Train.List[0];
        var file = DataFiles.Of(source, config.Folder, config.Snapshots)[0];
        var reader = new RowReader(model, config.Settings.Data, source.Columns);
        using var chunk = RowFile.Read(file, 1).FirstOrDefault();
        try
        {
            if (chunk is not { Rows: [var first, ..] } || reader.Pair(chunk[first], chunk.FirstLine) is null)
                return [];
            return
            [
                .. RowFile
                    .Read(file, 1)
                    .Take(count)
                    .Select(one => reader.Pair(one[one.Rows[0]], one.FirstLine))
                    .OfType<(Row, Row)>(),
            ];
        }
        catch (RowFault)
        {
            return []; // what is wrong with a row is told with all others
        }
    }

    /// <summary>Reads a file whole into memory; the tokenizer and the template are asked for only by rows that need
    /// them.</summary>
    public static Dataset Load(
        string file,
        Func<Tokenizer> tokenizer,
        Func<ChatTemplate?> template,
        DataConfig config,
        IReadOnlySet<int> endOfTurn
    ) =>
        new DatasetLoader(config, new(tokenizer, template, endOfTurn), null, null, default).Load(
            new([new(file)]),
            "",
            new Dictionary<string, Memopt.Hub.Snapshot>(),
            DataRole.Train,
            file
        );

    /// <summary>Reads a config's rows for training or evaluation; null when it has none for evaluation.</summary>
    /// <param name="config">The config; data sets from elsewhere are here already.</param>
    /// <param name="model">Makes tokens of text.</param>
    /// <param name="role">Which rows.</param>
    /// <param name="reports">Told what passes.</param>
    /// <param name="stop">Gives up; what was tokenized of a large file is kept.</param>
    public static Dataset? Load(
        ProjectConfig config,
        ChatEncoder model,
        DataRole role,
        DataReports? reports = null,
        CancellationToken stop = default
    ) => Load(config, model, role, RowFile.ChunkBytes, reports, stop);

    internal static Dataset? Load(
        ProjectConfig config,
        ChatEncoder model,
        DataRole role,
        int chunkBytes,
        DataReports? reports = null,
        CancellationToken stop = default
    )
    {
        var data = config.Settings.Data;
        var sources = role == DataRole.Train || (data.Eval is null && data.EvalShare > 0) ? data.Train : data.Eval;
        return sources is null
            ? null
            : new DatasetLoader(data, model, model.Hash is null ? null : new(config.Full(data.Cache)), reports, stop)
            {
                ChunkBytes = chunkBytes,
            }.Load(sources, config.Folder, config.Snapshots, role, sources.ToString());
    }

    /// <summary>One reading of sources.</summary>
    private sealed class DatasetLoader(
        DataConfig config,
        ChatEncoder model,
        TokenCache? cache,
        DataReports? reports,
        CancellationToken stop
    )
    {
        public int ChunkBytes { get; init; } = RowFile.ChunkBytes;

        public Dataset Load(
            DataSources sources,
            string folder,
            IReadOnlyDictionary<string, Memopt.Hub.Snapshot> located,
            DataRole role,
            string name
        )
        {
            var files = sources
                .List.Select(source => (Source: source, Files: DataFiles.Of(source, folder, located)))
                .ToList();
            var tokens = Tokens(files, name);
            var (shards, choices, shares, description) = (
                new List<TokenShard>(),
                new List<(int First, int[]? Rows, int Count)>(),
                new List<SourceWeight>(),
                new StringBuilder()
            );
            foreach (var (source, of) in files)
            {
                var own = of.SelectMany(file => tokens[(source, file)].Shards).ToList();
                var chosen = Choose(own, source, role);
                var count = chosen?.Length ?? own.Sum(shard => shard.Rows);
                shares.Add(new(choices.Sum(choice => choice.Count), count, source.Weight));
                choices.Add((shards.Sum(shard => shard.Rows), chosen, count));
                shards.AddRange(own);
                description.Append(CultureInfo.InvariantCulture, $"{source.Samples} {source.Weight} {source.Format}\n");
                foreach (
                    var (to, from) in (source.Columns ?? new Dictionary<string, string>()).OrderBy(
                        pair => pair.Key,
                        StringComparer.Ordinal
                    )
                )
                    description.Append(CultureInfo.InvariantCulture, $"{to}={from}\n");
                foreach (var file in of)
                    description.Append(tokens[(source, file)].Hash).Append('\n');
            }
            var counts = shards.Aggregate(default(DataCounts), (sum, shard) => sum + shard.Counts);
            int[]? picks = choices.All(choice => choice.Rows is null)
                ? null
                :
                [
                    .. choices.SelectMany(choice =>
                        choice.Rows is null
                            ? Enumerable.Range(choice.First, choice.Count)
                            : choice.Rows.Select(row => choice.First + row)
                    ),
                ];
            if (choices.Sum(choice => choice.Count) == 0)
            {
                throw counts is { Rows: 0, Dropped: 0, Rejected: 0 }
                    ? new UserFault(
                        $"{name} has no rows.",
                        "an empty file",
                        "write one JSON object a line: {\"messages\": […]}"
                    )
                    : new UserFault(
                        $"No row of {name} is left for {(role == DataRole.Train ? "training" : "evaluation")}.",
                        $"{counts.Rows:N0} rows were read, {counts.Dropped:N0} left out for their length"
                            + $"{(counts.Rejected > 0 ? $", {counts.Rejected:N0} labelled false" : "")}",
                        "change data.evalShare, data.truncate or data.maxLength, or the data"
                    );
            }
            // A file as it is keeps the name that it has anywhere: its own hash.
            var plain =
                files is [({ Samples: null, Weight: 1, Columns: null, Format: null }, [_])] && config.EvalShare == 0;
            var hash = plain
                ? tokens[(files[0].Source, files[0].Files[0])].Hash
                : Convert.ToHexStringLower(
                    SHA256.HashData(
                        Encoding.UTF8.GetBytes(
                            string.Create(CultureInfo.InvariantCulture, $"{role} {config.EvalShare}\n{description}")
                        )
                    )
                );
            var rows = new TokenRows(shards, picks, shares.All(share => share.Weight == 1) ? null : shares);
            long all = 0;
            var longest = 0;
            foreach (var length in rows.Lengths)
                (all, longest) = (all + length, Math.Max(longest, length));
            return new(rows, hash, counts, all, rows.TargetCount(), longest);
        }

        /// <summary>The rows that a source gives for a role, ascending; null when that is all of them.</summary>
        private int[]? Choose(List<TokenShard> shards, DataSource source, DataRole role)
        {
            var (share, count) = (config.EvalShare, shards.Sum(shard => shard.Rows));
            if (share == 0 && source.Samples is null)
                return null;
            var (hashes, parts) = (new ulong[count], new byte[count]);
            var at = 0;
            foreach (var shard in shards)
            {
                shard.Hashes(hashes.AsSpan(at, shard.Rows));
                shard.Parts(parts.AsSpan(at, shard.Rows));
                at += shard.Rows;
            }
            IEnumerable<int> rows = Enumerable.Range(0, count);
            if (source.Samples is { } samples)
            {
                // Those with the smallest numbers drawn from seed and content. Parts of a row that was split have one
                // hash and follow each other.
                var seed = SplitMix64.Of((ulong)config.Seed);
                var leads = rows.Where(row => row == 0 || parts[row] == 0 || hashes[row] != hashes[row - 1]).ToArray();
                var keys = Array.ConvertAll(leads, row => (SplitMix64.Of(hashes[row] ^ seed), row));
                Array.Sort(keys);
                rows = keys.Take(samples)
                    .Select(key => key.row)
                    .Order()
                    .SelectMany(lead =>
                        Enumerable
                            .Range(lead, count - lead)
                            .TakeWhile(row => row == lead || (parts[row] > 0 && hashes[row] == hashes[lead]))
                    );
            }
            // The side is the row's own: no seed, and nothing of where it stands.
            return
            [
                .. share == 0
                    ? rows
                    : rows.Where(row =>
                        SplitMix64.UnitInterval(SplitMix64.Of(hashes[row])) < share == (role == DataRole.Eval)
                    ),
            ];
        }

        /// <summary>The shards of each file with the file's hash, from the cache or made now; or all rows that cannot
        /// be trained on, at once.</summary>
        private Dictionary<(DataSource, DataFile), (IReadOnlyList<TokenShard> Shards, string Hash)> Tokens(
            List<(DataSource Source, IReadOnlyList<DataFile> Files)> sources,
            string name
        )
        {
            var all = sources
                .SelectMany(source => source.Files.Select(file => (source.Source, File: file)))
                .Distinct()
                .ToList();
            if (cache is null || all.Sum(part => Size(part.File)) <= ChunkBytes)
            {
                var made = Tokenize(all, null, name);
                return all.ToDictionary(
                    part => part,
                    part =>
                        (
                            (IReadOnlyList<TokenShard>)[.. made[part].Select(shard => shard.Shard)],
                            TokenCache.HashOf(part.File.Path, stop)
                        )
                );
            }
            var kept = all.ToDictionary(
                part => part,
                part =>
                    (
                        Hash: cache.Hash(
                            part.File,
                            () => reports?.Note($"{part.File.Path}: read once for its hash"),
                            stop
                        ),
                        Recipe: TokenCache.Recipe(model.Hash!, config, part.Source, part.File.Format)
                    )
            );
            var found = new Dictionary<(DataSource, DataFile), IReadOnlyList<TokenShard>>();
            if (!Find())
            {
                using var held = cache.Lock(() => reports?.Note("another process is tokenizing; waiting for it"), stop);
                if (!Find())
                {
                    cache.Tidy();
                    var missing = all.Where(part => !found.ContainsKey(part)).ToList();
                    foreach (
                        var (part, shards) in Tokenize(
                            missing,
                            (cache, part => Convert.FromHexString(kept[part].Recipe)),
                            name
                        )
                    )
                    {
                        cache.Complete(
                            kept[part].Hash,
                            kept[part].Recipe,
                            shards.Select(shard => (shard.Name, shard.Shard.FirstLine))
                        );
                        found[part] = [.. shards.Select(shard => shard.Shard)];
                    }
                }
            }
            return all.ToDictionary(part => part, part => (found[part], kept[part].Hash));

            bool Find()
            {
                foreach (var (part, (hash, recipe)) in kept.Where(part => !found.ContainsKey(part.Key)))
                {
                    if (cache.Find(hash, recipe, part.Item2.Path) is { } shards)
                        found[part] = shards;
                }
                return found.Count == all.Count;
            }
        }

        private static UserFault Unfit(List<Problem> problems, IEnumerable<DataFile> files, string name)
        {
            var order = files
                .Select(file => file.Path)
                .Distinct()
                .Select((path, at) => (path, at))
                .ToDictionary(pair => pair.path, pair => pair.at);
            var told = problems
                .OrderBy(problem => order[problem.File!])
                .ThenBy(problem => problem.Line)
                .Take(MostProblems)
                .ToList();
            return new(
                $"{told.Count} {(told.Count == 1 ? "row" : "rows")} of {name} cannot be trained on"
                    + $"{(told.Count == MostProblems ? $" (the first {MostProblems})" : "")}.",
                found: string.Join('\n', told.Select(problem => $"{problem.File}:{problem.Line}: {problem.Message}")),
                next: "mend or remove these rows"
            )
            {
                Problems = told,
            };
        }

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

        /// <summary>Makes tokens of files' chunks, on all cores; goes no further than the chunk in which the twentieth
        /// bad row is.</summary>
        private Dictionary<(DataSource, DataFile), List<(TokenShard Shard, string Name)>> Tokenize(
            IReadOnlyList<(DataSource Source, DataFile File)> files,
            (TokenCache Cache, Func<(DataSource, DataFile), byte[]> Salt)? kept,
            string name
        )
        {
            var made = new Dictionary<(int File, int Chunk), (TokenShard Shard, string Name)>();
            var problems = new List<Problem>();
            var (bad, reused) = (0, 0);
            var salts = kept is null ? null : files.Select(file => kept.Value.Salt(file)).ToList();
            var remarks = new Remarks();
            var readers = files
                .Select(file => new RowReader(model, config, file.Source.Columns, remarks, stop))
                .ToList();
            try
            {
                Parallel.ForEach(
                    System.Collections.Concurrent.Partitioner.Create(
                        Chunks(),
                        System.Collections.Concurrent.EnumerablePartitionerOptions.NoBuffering
                    ),
                    new ParallelOptions
                    {
                        MaxDegreeOfParallelism = Environment.ProcessorCount,
                        CancellationToken = stop,
                    },
                    work =>
                    {
                        using var chunk = work.Chunk;
                        var own = salts is null ? "" : Convert.ToHexStringLower(chunk.Hash(salts[work.File]));
                        var here = kept?.Cache.Shard(own);
                        var faults = new List<Problem>();
                        if (here is null)
                        {
                            var bytes = Tokenize(chunk, readers[work.File], files[work.File].File.Path, faults);
                            here =
                                faults.Count > 0 ? null
                                : kept is { } keep ? keep.Cache.Store(own, bytes)
                                : TokenShard.Of(bytes);
                        }
                        else
                        {
                            Interlocked.Increment(ref reused);
                        }
                        lock (made)
                        {
                            problems.AddRange(faults);
                            Volatile.Write(ref bad, problems.Count);
                            if (here is not null)
                                made[(work.File, work.Number)] = (
                                    here.At(chunk.FirstLine, files[work.File].File.Path),
                                    own
                                );
                        }
                    }
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
                throw Unfit(problems, files.Select(file => file.File), name);
            foreach (var line in remarks.Lines)
                reports?.Note(line);
            if (reused > 0)
                reports?.Note($"{reused:N0} of {made.Count:N0} parts were tokenized by an earlier run");
            var byFile = made.OrderBy(entry => entry.Key.Chunk).ToLookup(entry => entry.Key.File, entry => entry.Value);
            return Enumerable.Range(0, files.Count).ToDictionary(file => files[file], file => byFile[file].ToList());

            IEnumerable<(int File, int Number, Chunk Chunk)> Chunks()
            {
                var (read, total) = (0L, files.Sum(file => file.File.Size));
                for (var file = 0; file < files.Count && Volatile.Read(ref bad) < MostProblems; file++)
                {
                    var (number, before, at) = (0, read, 0L);
                    void Passed(long done)
                    {
                        stop.ThrowIfCancellationRequested(); // a packed file may have much and no row
                        at = done;
                    }

                    foreach (var chunk in RowFile.Read(files[file].File, ChunkBytes, Passed))
                    {
                        yield return (file, number++, chunk);
                        if (kept is not null)
                            reports?.Progress(before + at, total);
                        if (Volatile.Read(ref bad) >= MostProblems)
                            break;
                    }
                    read += files[file].File.Size;
                }
            }
        }

        private byte[] Tokenize(Chunk chunk, RowReader reader, string path, List<Problem> problems)
        {
            var shard = new TokenShard.Builder();
            problems.AddRange(chunk.Faults.Select(fault => Unreadable(fault.Message, path, fault.Line)));
            foreach (var text in chunk.Rows)
            {
                stop.ThrowIfCancellationRequested();
                var line = chunk.FirstLine + text.Line;
                try
                {
                    var (row, hash) = reader.Read(chunk[text], line);
                    if (row is null)
                        shard.Count(rejected: 1);
                    else
                        foreach (var (part, index) in Cut(row, shard).Select((part, index) => (part, index)))
                            shard.Add(part, text.Line, hash, index);
                }
                catch (RowFault fault)
                {
                    problems.Add(Unreadable(fault.Message, path, line));
                    if (problems.Count == MostProblems)
                        break;
                }
                catch (PairFault fault)
                {
                    throw new UserFault(
                        $"{path} cannot be trained on: {fault.Message}.",
                        found: $"line {line}",
                        next: $"dotnet memopt data preview {path} shows them; to train on the preferred answers "
                            + $"alone, set \"columns\": {{\"completion\": \"chosen\"}}",
                        inner: fault
                    )
                    {
                        Problems = [Unreadable(fault.Message, path, line)],
                    };
                }
            }
            return problems.Count > 0 ? [] : shard.ToArray();
        }

        /// <summary>What a row becomes under data.maxLength and data.truncate.</summary>
        private IReadOnlyList<Row> Cut(Row row, TokenShard.Builder counts)
        {
            Trainable(row);
            if (row.Ids.Length <= config.MaxLength)
                return [row];
            // A part in which nothing carries loss would teach nothing.
            var left = Dataset.Cut(row, config).Where(part => part.TargetCount > 0).ToList();
            if (left.Count == 0 && config.Truncate != Truncation.Drop)
                throw CutOff(config);
            counts.Count(
                config.Truncate is Truncation.Left or Truncation.Right ? 1 : 0,
                config.Truncate == Truncation.Drop ? 1 : 0,
                config.Truncate == Truncation.Split ? 1 : 0
            );
            return left;
        }
    }
}
