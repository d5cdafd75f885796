using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;

namespace Memopt.Trainer.Recipes;

/// <summary>The adapter that a config trains, settled before anything is planned: all that comes after reads it from
/// the settings.
/// </summary>
internal static class StartingAdapter
{
    private const int MostConfigs = 20;

    /// <summary>The config with the rank, alpha, targets, patterns and biases of the adapter that it starts from.
    /// Where another config is still to make that adapter, its settings count. A config that starts from none is given
    /// back, its names checked against the model.
    /// </summary>
    /// <param name="config">With the adapter's folder located.</param>
    /// <param name="spec">The model.</param>
    /// <param name="tell">Receives what was taken.</param>
    /// <exception cref="UserFault">The adapter cannot be loaded over the model, or a name fits no module.</exception>
    public static ProjectConfig Settle(ProjectConfig config, ModelSpec spec, Action<string>? tell = null) =>
        Settle(config, spec, tell, 0);

    private static ProjectConfig Settle(ProjectConfig config, ModelSpec spec, Action<string>? tell, int above)
    {
        if (config.StartingAdapter is not { } from)
        {
            Check(config, spec);
            return config;
        }
        if (above == MostConfigs)
        {
            throw new UserFault(
                "adapter.from goes in a circle.",
                found: config.File,
                next: "name an adapter that is there, or leave adapter.from out"
            );
        }
        var taken =
            !Directory.Exists(from) && ProjectPaths.ProducerConfig(from) is { } maker
                ? Settle(RunConfigFile.Read(maker, [], checkFiles: false), spec, tell: null, above + 1).Settings.Adapter
                : Read(from, spec, tell);
        var own = config.Settings.Adapter;
        taken = taken with { Kind = own.Kind, Dropout = own.Dropout, From = own.From };
        return RunConfigFile.With(config, config.Settings with { Adapter = taken });
    }

    private static AdapterConfig Read(string from, ModelSpec spec, Action<string>? tell)
    {
        var adapter = PeftAdapter.Read(from, spec);
        var taken = adapter.Config;
        var targets = taken.Targets.All ? "all linears" : string.Join(", ", taken.Targets.Names.Take(8));
        tell?.Invoke($"rank {taken.Rank}, alpha {taken.Alpha:0.####}, {targets}: those of {from}");
        foreach (var note in adapter.Notes)
            tell?.Invoke(note);
        return taken;
    }

    private static void Check(ProjectConfig config, ModelSpec spec)
    {
        var adapter = config.Settings.Adapter;
        if (adapter.Kind == AdapterKind.None)
            return;
        var names = spec.AllLinears.Select(linear => linear.Name).ToList();
        var adapted = names.Where(adapter.Targets.Cover).ToList();
        var known = string.Join(", ", names.Select(name => name[(name.LastIndexOf('.') + 1)..]).Distinct());
        Problem At(string path, string message) => RunConfigFile.At(config, path, $"{message}: {known}", "MEMOPT0006");
        var idle = adapter.Targets.Names.Where(target => !names.Any(name => Targets.Matches(name, target))).ToList();
        List<string> Idle(IEnumerable<string> keys) =>
            [.. keys.Where(key => !adapted.Any(module => ModulePattern.Fits(key, module)))];
        var (ranks, alphas) = (Idle(adapter.RankPattern.Keys), Idle(adapter.AlphaPattern.Keys));
        Problem Pattern(string setting, string key) =>
            At($"adapter/{setting}/{key}", "fits no module that gets an adapter");
        Problem[] problems =
        [
            .. idle.Select(target => At("adapter.targets", $"names \"{target}\", which is no linear of the model")),
            .. ranks.Select(key => Pattern("rankPattern", key)),
            .. alphas.Select(key => Pattern("alphaPattern", key)),
        ];
        if (problems.Length > 0)
        {
            throw new UserFault(
                $"{config.File} names modules that the model has not: "
                    + $"{string.Join(", ", [.. idle, .. ranks, .. alphas])}.",
                next: "a key of a pattern is a regular expression for the end of a module's name: docs/models.md"
            )
            {
                Problems = problems,
            };
        }
    }
}
