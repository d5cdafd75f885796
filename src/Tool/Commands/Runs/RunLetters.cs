using Memopt.Tool.Cli;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary>Ids of runs do not fit above columns of a narrow table: letters stand there, as in the chart.</summary>
internal static class RunLetters
{
    public static IEnumerable<string> Of(IReadOnlyList<Run> runs) =>
        runs.Select((_, place) => $"{(char)('a' + place)}");

    /// <summary>Shows which run each letter stands for.</summary>
    public static void Show(IReadOnlyList<Run> runs)
    {
        foreach (var (letter, run) in Of(runs).Zip(runs))
            Shell.Output.WriteLine($"{letter}  {run.Start.Id}");
    }
}
