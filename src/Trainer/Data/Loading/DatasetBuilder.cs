using System.Globalization;
using System.Text;
using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data.Loading;

/// <summary>Joins the rows of sources, one source after the other.</summary>
/// <param name="config">Which rows are for what.</param>
/// <param name="role">Which rows are wanted.</param>
/// <param name="name">The sources as a user writes them.</param>
internal sealed class DatasetBuilder(DataConfig config, DataRole role, string name)
{
    /// <summary>The rows of a source.</summary>
    /// <param name="First">The first of all its rows.</param>
    /// <param name="Rows">Those that are chosen; null for all.</param>
    /// <param name="Count">How many are chosen.</param>
    private sealed record Choice(int First, int[]? Rows, int Count)
    {
        public IEnumerable<int> Picks => Rows?.Select(row => First + row) ?? Enumerable.Range(First, Count);
    }

    private readonly List<TokenShard> shards = [];
    private readonly List<Choice> choices = [];
    private readonly List<SourceWeight> weights = [];
    private readonly StringBuilder description = new();
    private string? plainHash; // of a single file that is taken as it is

    public void Add(DataSource source, IReadOnlyList<FileTokens> files)
    {
        var own = files.SelectMany(file => file.Shards).ToList();
        var chosen = RowChoice.Of(own, source, config, role);
        var count = chosen?.Length ?? own.Sum(shard => shard.Rows);
        var single = choices.Count == 0 && files.Count == 1;
        plainHash =
            single && source is { Samples: null, Weight: 1, Columns: null, Format: null } && config.EvalShare == 0
                ? files[0].Hash
                : null;
        weights.Add(new(choices.Sum(choice => choice.Count), count, source.Weight));
        choices.Add(new(shards.Sum(shard => shard.Rows), chosen, count));
        shards.AddRange(own);
        Describe(source, files);
    }

    /// <exception cref="UserFault">No row is left.</exception>
    public Dataset Build()
    {
        var counts = shards.Aggregate(default(DataCounts), (sum, shard) => sum + shard.Counts);
        if (choices.Sum(choice => choice.Count) == 0)
            throw NoRows(counts);
        int[]? picks = choices.All(choice => choice.Rows is null)
            ? null
            : [.. choices.SelectMany(choice => choice.Picks)];
        var rows = new TokenRows(shards, picks, weights.All(share => share.Weight == 1) ? null : weights);
        long all = 0;
        var longest = 0;
        foreach (var length in rows.Lengths)
            (all, longest) = (all + length, Math.Max(longest, length));
        return new(rows, Hash, counts, all, rows.TargetCount(), longest);
    }

    /// <summary>A file as it is keeps the name that it has anywhere: its own hash.</summary>
    private string Hash =>
        plainHash
        ?? Sha256.OfText(string.Create(CultureInfo.InvariantCulture, $"{role} {config.EvalShare}\n{description}"));

    private void Describe(DataSource source, IReadOnlyList<FileTokens> files)
    {
        description.Append(CultureInfo.InvariantCulture, $"{source.Samples} {source.Weight} {source.Format}\n");
        var columns = source.Columns ?? new Dictionary<string, string>();
        foreach (var (to, from) in columns.OrderBy(pair => pair.Key, StringComparer.Ordinal))
            description.Append(CultureInfo.InvariantCulture, $"{to}={from}\n");
        foreach (var file in files)
            description.Append(file.Hash).Append('\n');
    }

    private UserFault NoRows(DataCounts counts) =>
        counts is { Rows: 0, Dropped: 0, Rejected: 0 }
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
