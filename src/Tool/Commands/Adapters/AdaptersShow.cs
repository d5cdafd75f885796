using System.CommandLine;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>adapters show</c>: a name's versions, and what its aliases meant before.</summary>
internal static class AdaptersShow
{
    public static Command Create()
    {
        var name = new Argument<string>("name") { Description = "The adapter's name." };
        var json = Shell.JsonOption();
        var command = new Command(
            "show",
            "Show a name's versions with their runs, metrics and aliases, and the history of aliases.\n\n"
                + "Example:\n  dotnet memopt adapters show word-class"
        )
        {
            name,
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
            {
                var adapter = AdapterPlaces.Here(stop).Need(parsed.GetValue(name)!);
                if (parsed.GetValue(json))
                {
                    Print(adapter);
                    return 0;
                }
                ShowVersions(adapter);
                ShowHistory(adapter);
                return 0;
            }
        );
        return command;
    }

    private static void Print(RegisteredAdapter adapter) =>
        Shell.Print(
            new
            {
                name = adapter.Name,
                aliases = adapter.Aliases,
                versions = adapter.Versions.Select(AdaptersCommand.Version),
                history = adapter.History,
            }
        );

    private static void ShowVersions(RegisteredAdapter adapter)
    {
        var metric = RegisteredAdapter.Rule(adapter.Versions[^1].Best).Metric;
        var table = new FittedTable("--json")
            .AddColumn("version", right: true)
            .AddColumn("registered", rank: 4)
            .AddColumn("run", rank: 1)
            .AddColumn(Markup.Escape(metric), right: true, rank: 2)
            .AddColumn("size", right: true)
            .AddColumn("artifact")
            .AddColumn("aliases", breaks: true, rank: 3);
        foreach (var version in adapter.Versions)
        {
            var value = RunsCommand.Brief(version.Metrics.TryGetValue(metric, out var known) ? known : null);
            var aliases = adapter.Aliases.Where(alias => alias.Value == version.Number).Select(alias => alias.Key);
            table.AddRow(
                $"{version.Number}",
                $"{version.Created:yyyy-MM-dd HH:mm}",
                Markup.Escape(version.Run ?? "–"),
                value + (OnOtherData(adapter, version, metric) ? "*" : ""),
                LedgerTable.Size(version.Bytes),
                version.Hash[..12],
                Markup.Escape(string.Join(", ", aliases))
            );
        }
        Shell.Output.Write(table);
        if (adapter.Versions.Any(version => OnOtherData(adapter, version, metric)))
            Shell.Output.WriteLine("* judged on other evaluation data than the best: not compared with it");
    }

    /// <summary>Whether a version's metric is of other evaluation data than that of the best.</summary>
    private static bool OnOtherData(RegisteredAdapter adapter, AdapterVersion version, string metric) =>
        RegisteredAdapter.ByData(metric)
        && version.Metrics.ContainsKey(metric)
        && version.Data != adapter.BestVersion?.Data;

    private static void ShowHistory(RegisteredAdapter adapter)
    {
        foreach (var change in adapter.History)
        {
            var version = adapter.All.FirstOrDefault(one => one.Hash == change.Hash && one.Run == change.Run);
            var target = change.Hash is null ? "removed" : version?.Number.ToString() ?? change.Hash[..12];
            Shell.Output.WriteLine($"{change.Time:u}  {change.Alias} → {target}  ({change.Host})");
        }
    }
}
