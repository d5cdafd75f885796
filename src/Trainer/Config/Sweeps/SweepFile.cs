using Memopt.Core;
using Memopt.Trainer.Config.Reading;

namespace Memopt.Trainer.Config.Sweeps;

/// <summary>One reading of a sweep file.</summary>
internal sealed class SweepFile
{
    private const string Next = "docs/sweeps.md has what a sweep file may say";

    private readonly string path;
    private readonly ConfigText text;
    private readonly ConfigProblems problems;

    private SweepFile(string path)
    {
        this.path = path;
        text = new(UntrustedFile.ReadAllBytes(path, UntrustedFile.Settings));
        problems = new(path, text);
    }

    /// <summary>A sweep file, or every problem of it at once with line and column; settings that contradict each other
    /// in a combination included.</summary>
    public static LoadedSweep Read(string path) =>
        File.Exists(path)
            ? new SweepFile(path).Read()
            : throw new UserFault(
                $"{path} is missing.",
                found: $"no such file in {Path.GetDirectoryName(Path.GetFullPath(path))}",
                next: "docs/sweeps.md shows one"
            );

    private LoadedSweep Read()
    {
        var sweep = new ConfigReader(problems) { Others = SweepParameterReader.Readers }.Read(text, new Sweep());
        var file = Path.Combine(Path.GetDirectoryName(path) ?? "", sweep.Config);
        if (problems.Count == 0)
            Check(sweep, file);
        problems.Throw(Next);
        var config = RunConfigFile.Read(file, []);
        var combinations = Combinations(sweep, file);
        problems.Throw(Next);
        return new(sweep, path, config, text.Compact(), combinations);
    }

    /// <summary>Parts of a sweep that contradict each other, and a config that is not there.</summary>
    private void Check(Sweep sweep, string file)
    {
        var (parameters, grid) = (sweep.Parameters.List, sweep.Method == SweepMethod.Grid);
        if (parameters.Count == 0)
            problems.AddOf("parameters", "must name at least one setting", "MEMOPT0003");
        if (!grid && sweep.Count is null)
            problems.AddOf("method", "random needs count", "MEMOPT0006");
        if (grid && sweep.Count is not null)
            problems.AddOf("count", "is for method random", "MEMOPT0006");
        foreach (var parameter in parameters.Where(parameter => grid && parameter.Range is not null))
            problems.AddOf(
                $"parameters/{parameter.Setting}",
                "a grid needs a list of values, or \"points\" in the range",
                "MEMOPT0006"
            );
        var many = parameters.Aggregate(1.0, (product, parameter) => product * parameter.Values.Count);
        if (grid && many > Sweep.Most)
            problems.AddOf("parameters", $"make {many:N0} combinations, at most {Sweep.Most:N0}", "MEMOPT0004");
        if (!File.Exists(file))
            problems.AddOf("config", $"\"{sweep.Config}\" is not a file", "MEMOPT0005");
    }

    /// <summary>The combinations, each of which was read as a config.</summary>
    private List<Combination> Combinations(Sweep sweep, string file)
    {
        var combinations = new List<Combination>();
        foreach (var (index, settings) in sweep.Combine().Index())
        {
            var combination = new Combination(index + 1, settings, "");
            try
            {
                var config = RunConfigFile.Read(
                    file,
                    [.. settings.Select(setting => $"{setting.Key}={setting.Value}")]
                );
                combinations.Add(combination with { Identity = Identity(config, settings) });
                if (combinations.Count == 1)
                    CheckMetric(sweep, config);
            }
            catch (UserFault fault) when (fault.Problems.Count > 0)
            {
                foreach (var problem in fault.Problems)
                    problems.AddOf(
                        "parameters",
                        $"combination {combination.Number} ({combination}): {problem.Path} {problem.Message}",
                        problem.Code
                    );
            }
        }
        return combinations;
    }

    private static string Identity(ProjectConfig config, IEnumerable<KeyValuePair<string, string>> settings)
    {
        var pinned = ConfigWriter.Flat(PinnedSettings.Write(config.Settings));
        var free = settings
            .Where(setting => !pinned.ContainsKey(setting.Key))
            .Select(setting => $"{setting.Key}={Secrets.Redact(setting.Key, setting.Value)}")
            .Order(StringComparer.Ordinal);
        return string.Join('\n', [config.Hash, .. free]);
    }

    private void CheckMetric(Sweep sweep, ProjectConfig config)
    {
        if (
            sweep.Metric.StartsWith("eval_", StringComparison.Ordinal)
            && config.Settings.Data is { Eval: null, EvalShare: 0 }
        )
            problems.AddOf(
                "metric",
                $"{sweep.Metric} needs data.eval or data.evalShare in {sweep.Config}",
                "MEMOPT0006"
            );
    }
}
