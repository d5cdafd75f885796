using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using Memopt.Core;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Config;

public enum TrainOn
{
    Assistant,
    All,
}

/// <summary>What becomes of a row that is longer than data.maxLength.</summary>
public enum Truncation
{
    Drop,

    [Alias("keep_end")]
    Left, // TRL

    [Alias("keep_start")]
    Right,
    Split,
}

public sealed record DataConfig
{
    [Description(
        "Training rows, one source or a list: a file, folder or glob (relative to the config file; JSON "
            + "Lines, JSON, CSV, TSV, Parquet, each also .gz, .br or .zst), or hf:org/name, "
            + "hf:org/name:configuration:split. A suffix '#500' takes 500 rows; an object also has weight, columns "
            + "and format."
    )]
    public DataSources Train { get; init; } = DataSources.Of("train.jsonl");

    [Description("Evaluation rows, in the same forms. None: no evaluation, unless evalShare is set.")]
    public DataSources? Eval { get; init; }

    /// <summary>All that rows come from, for either use.</summary>
    public IEnumerable<DataSource> Sources => Train.List.Concat(Eval?.List ?? []);

    [
        Description(
            "Share of the training rows that is used for evaluation. Which split a row falls in depends only on a "
                + "hash of its content."
        ),
        Range(0.0, 0.9),
        Pinned
    ]
    public double EvalShare { get; init; }

    [
        Description("Length of the longest row; truncate applies to longer ones. Activation memory grows with it."),
        Unit("tokens"),
        Range(2, 1 << 24),
        Pinned
    ]
    public int MaxLength { get; init; } = 1024;

    [
        Description(
            "For rows longer than maxLength: right cuts the end, left the beginning, drop leaves the row out, "
                + "split makes several rows."
        ),
        Pinned
    ]
    public Truncation Truncate { get; init; } = Truncation.Right;

    [
        Description(
            "Pack short rows into one sequence of maxLength, each attending only to itself. Saves the cost of padding."
        ),
        Pinned
    ]
    public bool Packing { get; init; }

    [Description("Draw a new order every epoch."), Pinned]
    public bool Shuffle { get; init; } = true;

    [Description("Seed of the order, of '#N' samples and of weighted rows."), Pinned]
    public int Seed { get; init; } = 42;

    [Description(
        "Folder for the tokens of large files (relative to the config file), kept by content for later runs. "
            + "Takes about as much disk as the text; may be removed at any time."
    )]
    public string Cache { get; init; } = ".memopt/data";

    [Description("Which tokens of a chat carry loss: the assistant's turns, or all."), Pinned]
    public TrainOn TrainOn { get; init; } = TrainOn.Assistant;
}
