namespace Memopt.Tracking;

/// <summary>A run as a filter looks at it.</summary>
/// <param name="Run">Its head.</param>
/// <param name="At">The last value that a metric has at a step; the only thing that reads points.</param>
/// <param name="ExperimentId">The id of the experiment that runs name so; the only thing that reads
/// experiments.</param>
internal sealed record FilterTarget(RunRecord Run, Func<string, long, double?> At, Func<string, string> ExperimentId);

/// <summary>What a filter can ask of a run: a number, a text, several texts, or null where the run has no such
/// thing.</summary>
internal delegate object? Read(FilterTarget subject);

/// <summary>A name in a filter, an order or a column.</summary>
/// <param name="Kind">What it can be compared with.</param>
/// <param name="Read">Its value.</param>
internal sealed record Operand(OperandKind Kind, Read Read);

/// <summary>Loose ones are texts that may stand for numbers: parameters and tags.</summary>
internal enum OperandKind
{
    Number,
    Time,
    Text,
    Status,
    Loose,
}
