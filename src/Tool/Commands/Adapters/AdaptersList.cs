using System.CommandLine;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>adapters ls</c>: names with their newest and best version.</summary>
internal static class AdaptersList
{
    public static Command Create()
    {
        var json = Shell.JsonOption();
        var command = new Command(
            "ls",
            "List names with their newest and best version.\n\nExample:\n  dotnet memopt adapters ls --json"
        )
        {
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
            {
                var all = AdapterPlaces.Here(stop).Known().List();
                if (parsed.GetValue(json))
                    Shell.Print(all.Select(AdaptersCommand.Brief));
                else
                    Show(all);
                return 0;
            }
        );
        return command;
    }

    private static void Show(IReadOnlyList<RegisteredAdapter> all)
    {
        var table = new FittedTable("--json")
            .AddColumn("adapter")
            .AddColumn("versions", right: true)
            .AddColumn("latest")
            .AddColumn("best")
            .AddColumn("aliases", breaks: true);
        foreach (var adapter in all)
            table.AddRow(
                Markup.Escape(adapter.Name),
                $"{adapter.Versions.Count}",
                Meant(adapter, RegisteredAdapter.Latest),
                Meant(adapter, RegisteredAdapter.Best),
                Markup.Escape(string.Join(", ", OwnAliases(adapter)))
            );
        Shell.Output.Write(table);
    }

    /// <summary>The version that an alias means, with the metric by which versions are judged.</summary>
    private static string Meant(RegisteredAdapter adapter, string alias)
    {
        if (!adapter.Aliases.TryGetValue(alias, out var number))
            return "–";
        var version = adapter.Versions.First(version => version.Number == number);
        var metric = RegisteredAdapter.Rule(adapter.Versions[^1].Best).Metric;
        return version.Metrics.TryGetValue(metric, out var value)
            ? $"{version.Number} ({metric} {RunsCommand.Brief(value)})"
            : $"{version.Number}";
    }

    private static IEnumerable<string> OwnAliases(RegisteredAdapter adapter) =>
        adapter
            .Aliases.Where(alias => alias.Key is not (RegisteredAdapter.Latest or RegisteredAdapter.Best))
            .Select(alias => $"{alias.Key} → {alias.Value}");
}
