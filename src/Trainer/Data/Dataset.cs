using System.Globalization;
using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data.Formats;
using Memopt.Trainer.Data.Loading;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data;

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
    public static IReadOnlyList<Problem> Sample(ProjectConfig config, ChatEncoder model, int count) =>
        DataSample.Problems(config, model, count);

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
            return []; // what is wrong with a row is reported with all others
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
        new DatasetLoader(config, new(tokenizer, template, endOfTurn)).Load(
            [SourceFiles.Of(new(file), "", new Dictionary<string, Memopt.Hub.Snapshot>())],
            DataRole.Train,
            file
        );

    /// <summary>Reads a config's rows for training or evaluation; null when it has none for evaluation.</summary>
    /// <param name="config">The config; data sets from elsewhere are here already.</param>
    /// <param name="model">Makes tokens of text.</param>
    /// <param name="role">Which rows.</param>
    /// <param name="reports">Receives the progress.</param>
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
            : new DatasetLoader(data, model)
            {
                Cache = model.Hash is null ? null : new(config.Full(data.Cache), TimeProvider.System),
                ChunkBytes = chunkBytes,
                Reports = reports,
                Stop = stop,
            }.Load(
                [.. sources.List.Select(source => SourceFiles.Of(source, config.Folder, config.Snapshots))],
                role,
                sources.ToString()
            );
    }
}
