using Memopt.Core;
using Memopt.Trainer.Config.Reading;

namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>A DeepSpeed file, and what becomes of each of its keys.</summary>
/// <param name="File">The file.</param>
/// <param name="Keys">Every key; one for a section that is settled as a whole, and one for each parameter whose default
/// counts.</param>
internal sealed record DeepSpeedFile(string File, IReadOnlyList<DeepSpeedKey> Keys)
{
    private const string Next =
        "dotnet memopt config import --deepspeed FILE lists every key; docs/distributed.md has them all";

    /// <summary>What the keys decide, with the key of each.</summary>
    public IEnumerable<(Assignment Assignment, DeepSpeedKey Key)> Assignments =>
        Keys.Where(key => key.Verdict.Outcome == KeyOutcome.Honoured)
            .SelectMany(key => key.Verdict.Settings.Select(assignment => (assignment, key)));

    /// <summary>The refusals, with their places.</summary>
    public IReadOnlyList<Problem> Refusals => Problems(KeyOutcome.Refused);

    /// <summary>The keys without effect, as warnings.</summary>
    public IReadOnlyList<Problem> Warnings => Problems(KeyOutcome.NoEffect);

    /// <summary>Reads a file. What is refused is in the keys.</summary>
    /// <param name="path">The file.</param>
    /// <param name="ranks">The world: the ranks that train together.</param>
    /// <exception cref="UserFault">It is missing, too long, or no JSON.</exception>
    public static DeepSpeedFile Read(string path, int ranks)
    {
        if (!System.IO.File.Exists(path))
        {
            throw new UserFault(
                $"{path} is missing.",
                found: $"no such file in {Path.GetDirectoryName(Path.GetFullPath(path))}",
                next: "name a DeepSpeed JSON: --deepspeed ds.json"
            );
        }
        var text = new ConfigText(UntrustedFile.ReadAllBytes(path, UntrustedFile.Settings));
        var problems = new ConfigProblems(path, text);
        var root = new DeepSpeedText(text, problems).Read();
        problems.Throw("fix the named place; DeepSpeed reads the file as JSON without comments");
        return new(path, new KeyWalk(new(root!, ranks), text).Keys());
    }

    /// <summary>The default settings with those of the file.</summary>
    public RunConfig Alone()
    {
        var overrides = new ConfigOverrides(new(File, new ConfigText([])));
        return Assignments.Aggregate(
            new RunConfig(),
            (settings, each) => overrides.Apply(settings, $"{each.Assignment}", File)
        );
    }

    /// <summary>Ends the reading with all refusals when there are any.</summary>
    /// <param name="failed">Whether the refusals are the result that was asked for (exit code 1).</param>
    public void ThrowRefusals(bool failed = false)
    {
        if (Refusals is { Count: > 0 } refusals)
        {
            throw new UserFault(
                refusals.Count == 1 ? $"{File} has a problem." : $"{File} has {refusals.Count} problems.",
                next: Next
            )
            {
                Problems = refusals,
                Failed = failed,
            };
        }
    }

    private List<Problem> Problems(KeyOutcome outcome) =>
        [
            .. Keys.Where(key => key.Verdict.Outcome == outcome)
                .Select(key => new Problem(
                    key.Key,
                    outcome == KeyOutcome.Refused ? key.Verdict.Why : $"has no effect: {key.Verdict.Why}",
                    File,
                    key.Line,
                    key.Column,
                    outcome == KeyOutcome.Refused ? key.Verdict.Code : Verdict.RefusedCode,
                    Warning: outcome == KeyOutcome.NoEffect
                )),
        ];
}
