using Memopt.Core;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data.Loading;

/// <summary>Rows that cannot be trained on, as problems of a config and as one fault.</summary>
internal static class RowProblems
{
    /// <summary>How many are reported; no more are looked for.</summary>
    public const int Most = 20;

    /// <param name="why">What is wrong.</param>
    /// <param name="path">The file.</param>
    /// <param name="line">The row's line; 0 for the file as a whole.</param>
    public static Problem Of(string why, string path, int line) => new("data", why, path, line, Code: "MEMOPT0007");

    /// <summary>All of them at once, in the order of the files and their lines.</summary>
    /// <param name="problems">Of rows.</param>
    /// <param name="files">Whose rows they are, in order.</param>
    /// <param name="name">The sources as a user writes them.</param>
    public static UserFault Fault(IEnumerable<Problem> problems, IEnumerable<DataFile> files, string name)
    {
        var order = files
            .Select(file => file.Path)
            .Distinct()
            .Select((path, at) => (path, at))
            .ToDictionary(pair => pair.path, pair => pair.at);
        var reported = problems
            .OrderBy(problem => order[problem.File!])
            .ThenBy(problem => problem.Line)
            .Take(Most)
            .ToList();
        return new(
            $"{reported.Count} {(reported.Count == 1 ? "row" : "rows")} of {name} cannot be trained on"
                + $"{(reported.Count == Most ? $" (the first {Most})" : "")}.",
            found: string.Join('\n', reported.Select(problem => $"{problem.File}:{problem.Line}: {problem.Message}")),
            next: "fix or remove these rows"
        )
        {
            Problems = reported,
        };
    }
}
