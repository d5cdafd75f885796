using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;

namespace Memopt.Trainer.Config;

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

    [Description("grid: every combination. random: as many as count says.")]
    public SweepMethod Method { get; init; } = SweepMethod.Grid;

    [Description("Combinations to draw (random)."), Range(1, Most)]
    public int? Count { get; init; }

    [Description("Seed of the draws (random).")]
    public int Seed { get; init; } = 42;

    [Description("What is judged: its last value.")]
    public string Metric { get; init; } = "eval_loss";

    [Description("Whether the least or the greatest is best.")]
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

/// <summary>The settings that a sweep tries, in the order of the file.</summary>
internal sealed record SweepParameters(IReadOnlyList<SweepParameter> List);

/// <summary>One setting of a sweep: values as JSON, or a range to draw from.</summary>
/// <param name="Setting">Its name in the config.</param>
/// <param name="Values">Values to try; empty when there is a range.</param>
/// <param name="Range">Where to draw from, or null.</param>
internal sealed record SweepParameter(string Setting, IReadOnlyList<string> Values, SweepRange? Range = null)
{
    /// <summary>The value that a chance from 0 to below 1 draws.</summary>
    public string Draw(double chance) => Range?.Draw(chance) ?? Values[(int)(chance * Values.Count)];
}

/// <summary>One combination of a sweep.</summary>
/// <param name="Number">From 1.</param>
/// <param name="Settings">What it sets, values as JSON.</param>
/// <param name="Identity">What it trains and how that is judged: sha256 of the config's pinned settings, and those of
/// its own that are not pinned, such as data.eval.</param>
internal sealed record Combination(int Number, IReadOnlyList<KeyValuePair<string, string>> Settings, string Identity)
{
    public override string ToString() =>
        string.Join("  ", Settings.Select(setting => $"{setting.Key}={Secrets.Redact(setting.Key, setting.Value)}"));
}

/// <summary>A sweep that was read and holds together.</summary>
/// <param name="Sweep">What the file says.</param>
/// <param name="File">The file.</param>
/// <param name="Base">The config that all combinations start from.</param>
/// <param name="Json">The file without comments.</param>
/// <param name="Combinations">In the order in which they are trained.</param>
internal sealed record LoadedSweep(
    Sweep Sweep,
    string File,
    ProjectConfig Base,
    string Json,
    IReadOnlyList<Combination> Combinations
)
{
    /// <summary>The name of the file without its ending.</summary>
    public string Name => Path.GetFileNameWithoutExtension(File);
}

internal static partial class RunConfigFile
{
    /// <summary>A sweep file, or every problem of it at once with line and column; settings that cannot go together in
    /// a combination included.</summary>
    public static LoadedSweep ReadSweep(string path)
    {
        if (!File.Exists(path))
            throw new UserFault(
                $"{path} is missing.",
                found: $"no such file in {Path.GetDirectoryName(Path.GetFullPath(path))}",
                next: "docs/sweeps.md shows one"
            );
        const string next = "docs/sweeps.md has what a sweep file may say";
        var reading = new ConfigReader(path);
        var sweep = reading.Root(UntrustedFile.ReadAllBytes(path, UntrustedFile.Settings), new Sweep());
        var file = Path.Combine(Path.GetDirectoryName(path) ?? "", sweep.Config);
        var parameters = sweep.Parameters.List;
        if (reading.Problems.Count == 0)
        {
            if (parameters.Count == 0)
                reading.Locate("parameters", "must name at least one setting", "MEMOPT0003");
            if (sweep.Method == SweepMethod.Random && sweep.Count is null)
                reading.Locate("method", "random needs count", "MEMOPT0006");
            if (sweep.Method == SweepMethod.Grid && sweep.Count is not null)
                reading.Locate("count", "is for method random", "MEMOPT0006");
            foreach (
                var parameter in parameters.Where(parameter =>
                    sweep.Method == SweepMethod.Grid && parameter.Range is not null
                )
            )
                reading.Locate(
                    $"parameters/{parameter.Setting}",
                    "a grid needs a list of values, or \"points\" in the range",
                    "MEMOPT0006"
                );
            if (
                sweep.Method == SweepMethod.Grid
                && parameters.Aggregate(1.0, (product, parameter) => product * parameter.Values.Count)
                    is > Sweep.Most
                        and var many
            )
                reading.Locate("parameters", $"make {many:N0} combinations, at most {Sweep.Most:N0}", "MEMOPT0004");
            if (!File.Exists(file))
                reading.Locate("config", $"\"{sweep.Config}\" is not a file", "MEMOPT0005");
        }
        reading.Throw(next);

        var config = Read(file, []);
        var combinations = new List<Combination>();
        foreach (var (index, settings) in sweep.Combine().Index())
        {
            var combination = new Combination(index + 1, settings, "");
            try
            {
                var effective = Read(file, [.. settings.Select(setting => $"{setting.Key}={setting.Value}")]);
                var pinned = Flat(Write(effective.Settings, pinnedOnly: true));
                var free = settings
                    .Where(setting => !pinned.ContainsKey(setting.Key))
                    .Select(setting => $"{setting.Key}={Secrets.Redact(setting.Key, setting.Value)}")
                    .Order(StringComparer.Ordinal);
                combinations.Add(combination with { Identity = string.Join('\n', [effective.Hash, .. free]) });
                if (
                    combinations.Count == 1
                    && sweep.Metric.StartsWith("eval_", StringComparison.Ordinal)
                    && effective.Settings.Data is { Eval: null, EvalShare: 0 }
                )
                    reading.Locate(
                        "metric",
                        $"{sweep.Metric} needs data.eval or data.evalShare in {sweep.Config}",
                        "MEMOPT0006"
                    );
            }
            catch (UserFault fault) when (fault.Problems.Count > 0)
            {
                foreach (var problem in fault.Problems)
                    reading.Locate(
                        "parameters",
                        $"combination {combination.Number} ({combination}): {problem.Path} {problem.Message}",
                        problem.Code
                    );
            }
        }
        reading.Throw(next);
        return new(
            sweep,
            path,
            config,
            JsonNode
                .Parse(
                    reading.Text,
                    documentOptions: new() { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true }
                )!
                .ToJsonString(),
            combinations
        );
    }

    private sealed partial class ConfigReader
    {
        private static readonly string[] rangeKeys = ["min", "max", "log", "points"];

        private SweepParameters? Parameters(ref Utf8JsonReader reader, string path)
        {
            if (reader.TokenType != JsonTokenType.StartObject)
                return null;
            var list = new List<SweepParameter>();
            while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
            {
                var name = reader.GetString()!;
                var setting = Find(name);
                var before = Problems.Count;
                if (setting is null)
                    At(ref reader, $"{path}.{name}", $"is not a setting{Like(name, Names())}", "MEMOPT0002");
                else if (list.Any(other => other.Setting == name))
                    At(ref reader, $"{path}.{name}", "is written twice", "MEMOPT0002");
                else if (name is "tracking.store" or "tracking.artifacts")
                    At(
                        ref reader,
                        $"{path}.{name}",
                        "cannot be swept: the runs of a sweep are kept together",
                        "MEMOPT0006"
                    );
                reader.Read();
                if (Problems.Count > before)
                {
                    reader.Skip();
                    continue;
                }
                if (Parameter(ref reader, $"{path}.{name}", name, setting!) is { } parameter)
                    list.Add(parameter);
            }
            return new(list);
        }

        private SweepParameter? Parameter(ref Utf8JsonReader reader, string path, string name, PropertyInfo setting)
        {
            var (line, column) = Position((int)reader.TokenStartIndex);
            void Wrong(string message) => Problem(path, message, line, column, "MEMOPT0003");
            if (reader.TokenType == JsonTokenType.StartArray)
            {
                var values = new List<string>();
                while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
                    values.Add(Tried(ref reader, path, name));
                if (values.Count == 0)
                    Wrong("must have at least one value");
                return new(name, [.. values.Distinct()]);
            }
            if (reader.TokenType != JsonTokenType.StartObject)
            {
                Wrong($"must be a list of values, or {{\"min\": …, \"max\": …}}, found {Found(ref reader)}");
                reader.Skip();
                return null;
            }
            var type = Nullable.GetUnderlyingType(setting.PropertyType) ?? setting.PropertyType;
            var before = Problems.Count;
            double? min = null,
                max = null;
            var (log, points) = (false, (int?)null);
            while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
            {
                var (key, place) = (reader.GetString()!, Position((int)reader.TokenStartIndex));
                reader.Read();
                var wanted = "";
                switch (key)
                {
                    case "min" or "max" when reader.TokenType == JsonTokenType.Number:
                        if (key == "min")
                            min = reader.GetDouble();
                        else
                            max = reader.GetDouble();
                        Tried(ref reader, path, name);
                        continue;
                    case "log" when reader.TokenType is JsonTokenType.True or JsonTokenType.False:
                        log = reader.GetBoolean();
                        continue;
                    case "points"
                        when reader.TokenType == JsonTokenType.Number
                            && reader.TryGetInt32(out var number)
                            && number is >= 2 and <= Sweep.Most:
                        points = number;
                        continue;
                    case "min" or "max":
                        wanted = "a number";
                        break;
                    case "log":
                        wanted = "true or false";
                        break;
                    case "points":
                        wanted = "a whole number from 2";
                        break;
                }
                if (wanted.Length > 0)
                    At(ref reader, $"{path}.{key}", $"must be {wanted}, found {Found(ref reader)}", "MEMOPT0003");
                else
                    Problem(
                        $"{path}.{key}",
                        $"is not a part of a range{Like(key, rangeKeys)}",
                        place.Line,
                        place.Column,
                        "MEMOPT0002"
                    );
                reader.Skip();
            }
            if (Problems.Count > before)
                return null;
            if (type != typeof(int) && type != typeof(double))
                Wrong("takes a list of values: a range is for numbers");
            else if (min is null || max is null || min >= max)
                Wrong("a range needs min and a greater max");
            else if (log && min <= 0)
                Wrong("a logarithmic range needs a min above 0");
            if (Problems.Count > before)
                return null;
            var range = new SweepRange(min!.Value, max!.Value, log, type == typeof(int));
            return points is null
                ? new(name, [], range)
                : new(
                    name,
                    [
                        .. Enumerable
                            .Range(0, points.Value)
                            .Select(point => range.At(point / (points.Value - 1.0)))
                            .Distinct(),
                    ]
                );
        }

        /// <summary>A value as JSON, tried on the setting it is for.</summary>
        private string Tried(ref Utf8JsonReader reader, string path, string name)
        {
            var (line, column) = Position((int)reader.TokenStartIndex);
            using var document = JsonDocument.ParseValue(ref reader);
            var json = document.RootElement.GetRawText();
            var trial = new ConfigReader(file);
            Override(new(), $"{name}={json}", trial, []);
            foreach (var problem in trial.Problems)
                Problem(path, problem.Message, line, column, problem.Code);
            return json;
        }
    }
}
