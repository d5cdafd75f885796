using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Security.Cryptography;
using System.Text;

namespace Memopt.Trainer.Config.Sweeps;

/// <summary>How a sweep goes over its parameters: every combination, or some drawn by chance.</summary>
internal enum SweepMethod
{
    Grid,
    Random,
}

internal enum SweepGoal
{
    Minimize,
    Maximize,
}

/// <summary>What a sweep file says: a config, and settings of it to try.</summary>
internal sealed record Sweep
{
    [Description("The config that every combination starts from (relative to the sweep file).")]
    public string Config { get; init; } = "memopt.json";

    [Description("grid: every combination. random: count combinations.")]
    public SweepMethod Method { get; init; } = SweepMethod.Grid;

    [Description("Combinations to draw (random)."), Range(1, Most)]
    public int? Count { get; init; }

    [Description("Seed of the draws (random).")]
    public int Seed { get; init; } = 42;

    [Description("The metric whose last value ranks the combinations.")]
    public string Metric { get; init; } = "eval_loss";

    [Description("minimize or maximize the metric.")]
    public SweepGoal Goal { get; init; } = SweepGoal.Minimize;

    [Description("Settings by name, each with a list of values or {\"min\", \"max\", \"log\", \"points\"}.")]
    public SweepParameters Parameters { get; init; } = new([]);

    internal const int Most = 10_000;

    /// <summary>The combinations, from nothing but what the file says: a grid's last setting changes fastest; a draw
    /// depends on seed, number and setting alone.</summary>
    internal IEnumerable<IReadOnlyList<KeyValuePair<string, string>>> Combine()
    {
        var parameters = Parameters.List;
        if (Method == SweepMethod.Grid)
        {
            IEnumerable<IReadOnlyList<KeyValuePair<string, string>>> all =
            [
                [],
            ];
            return parameters.Aggregate(
                all,
                (before, parameter) =>
                    before.SelectMany(some =>
                        parameter.Values.Select(value =>
                            (IReadOnlyList<KeyValuePair<string, string>>)[.. some, new(parameter.Setting, value)]
                        )
                    )
            );
        }
        // What is drawn twice counts once; a few values may not have as many combinations as were asked for.
        return Enumerable
            .Range(0, 20 * Count!.Value)
            .Select(number =>
                (IReadOnlyList<KeyValuePair<string, string>>)
                    [
                        .. parameters.Select(parameter => new KeyValuePair<string, string>(
                            parameter.Setting,
                            parameter.Draw(Chance(number, parameter.Setting))
                        )),
                    ]
            )
            .DistinctBy(settings => string.Join(' ', settings))
            .Take(Count.Value);
    }

    /// <summary>From 0 to below 1.</summary>
    private double Chance(int number, string setting) =>
        (
            BitConverter.ToUInt64(
                SHA256.HashData(Encoding.UTF8.GetBytes(FormattableString.Invariant($"{Seed}/{number}/{setting}")))
            ) >> 11
        ) * Math.ScaleB(1, -53);
}
