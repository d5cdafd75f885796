using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Commands.Runs;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>adapters ls|show|register|alias|rm</c>: adapters by name, version and alias.</summary>
internal static class AdaptersCommand
{
    public static Command Create() =>
        new(
            "adapters",
            "Name adapters: versions of each name, and aliases such as production. NAME, NAME@alias and NAME@3 "
                + "stand wherever an adapter is asked for.\n\nExample:\n  dotnet memopt adapters ls\n  dotnet memopt "
                + "adapters alias word-class@3 production\n  dotnet memopt infer --adapter word-class@production \"…\""
        )
        {
            List(),
            Show(),
            Register(),
            Alias(),
            Remove(),
        };

    /// <summary>The registry that a command works on.</summary>
    private sealed record Place(
        AdapterRegistry Registry,
        LocalArtifacts Local,
        BlobArtifacts? Account,
        ProjectConfig? Config
    )
    {
        /// <summary>What this machine and the account know together; what is known here when the account cannot be
        /// reached.</summary>
        public AdapterRegistry Known(string? name = null)
        {
            ArtifactStores.TrySync(Registry, name, text => Shell.Progress.WriteLine(text));
            return Registry;
        }

        public RegisteredAdapter Need(string name) =>
            Known(name).Find(name)
            ?? throw new UserFault($"There is no adapter {name}.", next: "dotnet memopt adapters ls");
    }

    private static Command List()
    {
        var json = Shell.JsonOption();
        var command = new Command(
            "ls",
            "List names with their newest and best version.\n\nExample:\n  dotnet memopt adapters ls --json"
        )
        {
            json,
        };
        Act(
            command,
            json,
            (parsed, place) =>
            {
                var all = place.Known().List();
                if (parsed.GetValue(json))
                {
                    Shell.Print(all.Select(Brief));
                    return 0;
                }
                var table = new FittedTable("--json")
                    .AddColumn("adapter")
                    .AddColumn("versions", right: true)
                    .AddColumn("latest")
                    .AddColumn("best")
                    .AddColumn("aliases", breaks: true);
                foreach (var adapter in all)
                {
                    string At(string alias) =>
                        adapter.Aliases.TryGetValue(alias, out var number)
                            ? Told(adapter, adapter.Versions.First(version => version.Number == number))
                            : "–";
                    table.AddRow(
                        Markup.Escape(adapter.Name),
                        $"{adapter.Versions.Count}",
                        At(RegisteredAdapter.Latest),
                        At(RegisteredAdapter.Best),
                        Markup.Escape(
                            string.Join(
                                ", ",
                                adapter
                                    .Aliases.Where(alias =>
                                        alias.Key is not (RegisteredAdapter.Latest or RegisteredAdapter.Best)
                                    )
                                    .Select(alias => $"{alias.Key} → {alias.Value}")
                            )
                        )
                    );
                }
                Shell.Output.Write(table);
                return 0;
            }
        );
        return command;
    }

    private static Command Show()
    {
        var name = new Argument<string>("name") { Description = "The name." };
        var json = Shell.JsonOption();
        var command = new Command(
            "show",
            "Show a name's versions with their runs, metrics and aliases, and what aliases meant before.\n\n"
                + "Example:\n  dotnet memopt adapters show word-class"
        )
        {
            name,
            json,
        };
        Act(
            command,
            json,
            (parsed, place) =>
            {
                var adapter = place.Need(parsed.GetValue(name)!);
                if (parsed.GetValue(json))
                {
                    Shell.Print(
                        new
                        {
                            name = adapter.Name,
                            aliases = adapter.Aliases,
                            versions = adapter.Versions.Select(Version),
                            history = adapter.History,
                        }
                    );
                    return 0;
                }
                var metric = RegisteredAdapter.Rule(adapter.Versions[^1].Best).Metric;
                bool Elsewhere(AdapterVersion version) =>
                    RegisteredAdapter.ByData(metric)
                    && version.Metrics.ContainsKey(metric)
                    && version.Data != adapter.BestVersion?.Data;
                string Value(AdapterVersion version) =>
                    RunsCommand.Brief(version.Metrics.TryGetValue(metric, out var value) ? value : null)
                    + (Elsewhere(version) ? "*" : "");
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
                    table.AddRow(
                        $"{version.Number}",
                        $"{version.Created:yyyy-MM-dd HH:mm}",
                        Markup.Escape(version.Run ?? "–"),
                        Value(version),
                        LedgerTable.Size(version.Bytes),
                        version.Hash[..12],
                        Markup.Escape(
                            string.Join(
                                ", ",
                                adapter.Aliases.Where(alias => alias.Value == version.Number).Select(alias => alias.Key)
                            )
                        )
                    );
                }
                Shell.Output.Write(table);
                if (adapter.Versions.Any(Elsewhere))
                    Shell.Output.WriteLine("* judged on other evaluation data than the best: not compared with it");
                foreach (var change in adapter.History)
                {
                    var version = adapter.All.FirstOrDefault(one => one.Hash == change.Hash && one.Run == change.Run);
                    var target = change.Hash is null ? "removed" : version?.Number.ToString() ?? change.Hash[..12];
                    Shell.Output.WriteLine($"{change.Time:u}  {change.Alias} → {target}  ({change.Host})");
                }
                return 0;
            }
        );
        return command;
    }

    private static Command Register()
    {
        var name = new Argument<string>("name") { Description = "The name; a new one is made." };
        var source = new Argument<string>("source")
        {
            Description = "A run's id, an artifact's hash, or the start of either; or a folder in PEFT's layout.",
        };
        var json = Shell.JsonOption();
        var command = new Command(
            "register",
            "Make an adapter a name's next version. A finished run does so by itself, under tracking.register or "
                + "its experiment.\n\nExample:\n  dotnet memopt adapters register word-class 261124\n  word-class@4"
        )
        {
            name,
            source,
            json,
        };
        Act(
            command,
            json,
            (parsed, place) =>
            {
                var (named, text) = (parsed.GetValue(name)!, parsed.GetValue(source)!);
                var (link, run) = Source(place, text);
                var registry = place.Known(named);
                var before = registry.Find(named);
                var version = registry.Register(
                    named,
                    link,
                    run,
                    place.Config?.Settings.Tracking.Best ?? new TrackingConfig().Best,
                    again: true
                )!;
                place.Account?.Push(version.Hash);
                Share(registry, named);
                var shared = registry
                    .Find(named)!
                    // its number may be another by now
                    .Versions.First(one => one.Hash == version.Hash && one.Run == version.Run);
                if (parsed.GetValue(json))
                    Shell.Print(new { name = named, version = Version(shared) });
                else
                    Console.Out.WriteLine($"{named}@{shared.Number}");
                if (registry.Find(named)!.NotCompared(before) is { } was)
                    Shell.Progress.WriteLine(
                        $"{named}@{was.Number}, the best before, was judged on other evaluation data; the two are "
                            + "not compared."
                    );
                return 0;
            }
        );
        return command;
    }

    private static Command Alias()
    {
        var adapter = new Argument<string>("adapter")
        {
            Description = "NAME@3, NAME@alias, or NAME for its latest version.",
        };
        var alias = new Argument<string>("alias")
        {
            Description = "What it is to be called: production, say. latest and best are set by themselves.",
        };
        var remove = new Option<bool>("--remove") { Description = "Take the alias away from NAME." };
        var json = Shell.JsonOption();
        var command = new Command(
            "alias",
            "Let an alias mean a version, in place of what it meant before, which adapters show tells.\n\n"
                + "Example:\n  dotnet memopt adapters alias word-class@best production"
        )
        {
            adapter,
            alias,
            remove,
            json,
        };
        Act(
            command,
            json,
            (parsed, place) =>
            {
                var (reference, called) = (parsed.GetValue(adapter)!, parsed.GetValue(alias)!);
                var name = reference.Split('@')[0];
                var registry = place.Known(name);
                if (parsed.GetValue(remove) && reference != name)
                    throw new UserFault(
                        "An alias is removed from a name.",
                        found: reference,
                        next: $"dotnet memopt adapters alias {name} {called} --remove"
                    );
                var number = parsed.GetValue(remove) ? (int?)null : registry.Resolve(reference).Version.Number;
                registry.Alias(name, called, number);
                Share(registry, name);
                if (parsed.GetValue(json))
                    Shell.Print(Brief(registry.Find(name)!));
                else
                    Console.Out.WriteLine(
                        number is null
                            ? $"{name} has no alias {called} any more"
                            : $"{name}@{called} is version {number}"
                    );
                return 0;
            }
        );
        return command;
    }

    private static Command Remove()
    {
        var adapter = new Argument<string>("adapter") { Description = "NAME@3, or NAME for all its versions." };
        var force = new Option<bool>("--force") { Description = "Also what an alias of yours means." };
        var json = Shell.JsonOption();
        var command = new Command(
            "rm",
            "Take a version, or a name with all its versions, off the registry. Content and runs stay.\n\n"
                + "Example:\n  dotnet memopt adapters rm word-class@3"
        )
        {
            adapter,
            force,
            json,
        };
        Act(
            command,
            json,
            (parsed, place) =>
            {
                var reference = parsed.GetValue(adapter)!;
                var parts = reference.Split('@', 2);
                var found = place.Need(parts[0]);
                var number =
                    parts.Length == 1 ? (int?)null
                    : int.TryParse(parts[1], out var one) ? one
                    : throw new UserFault(
                        $"{parts[1]} is no version's number.",
                        next: $"dotnet memopt adapters alias {parts[0]} {parts[1]} --remove takes the alias away"
                    );
                var meant = found
                    .Aliases.Where(alias =>
                        alias.Key is not (RegisteredAdapter.Latest or RegisteredAdapter.Best)
                        && (number is null || alias.Value == number)
                    )
                    .Select(alias => alias.Key)
                    .ToList();
                if (meant.Count > 0 && !parsed.GetValue(force))
                    throw new UserFault(
                        $"{reference} is what {string.Join(", ", meant)} means.",
                        next: "add --force, or move the alias first: dotnet memopt adapters alias"
                    )
                    {
                        Failed = true,
                    };
                place.Registry.Remove(parts[0], number);
                Share(place.Registry, parts[0]);
                var removed = found.Versions.Where(version => number is null || version.Number == number).ToList();
                if (parsed.GetValue(json))
                    Shell.Print(new { name = parts[0], removed = removed.Select(Version) });
                else
                    Console.Out.WriteLine(
                        $"{reference} is off the registry, {removed.Count} "
                            + $"{(removed.Count == 1 ? "version" : "versions")}; the content stays: dotnet memopt "
                            + "artifacts ls"
                    );
                return 0;
            }
        );
        return command;
    }

    /// <summary>Tells the account; throws when it does not hear.</summary>
    private static void Share(AdapterRegistry registry, string name)
    {
        try
        {
            registry.Sync(name);
        }
        catch (TrackingException e)
        {
            throw new UserFault(
                $"{e.Message} The registry was changed on this machine only.",
                next: $"{(e.IsTransient ? "" : e.Next + "; then: ")}dotnet memopt artifacts sync",
                inner: e
            )
            {
                Failed = true,
            };
        }
    }

    /// <summary>The artifact that is to be registered, and the run it is of.</summary>
    private static (ArtifactLink, Run?) Source(Place place, string text)
    {
        if (Directory.Exists(text))
        {
            Trainer.Weights.PeftAdapter.Described(Path.GetFullPath(text));
            return (place.Local.Put("adapter", Path.GetFullPath(text)), null);
        }
        using (var store = CurrentProject.Known())
        {
            if (store?.Get(text) is { } run)
                return (
                    run.Artifacts.FirstOrDefault(link => link.Name == "adapter")
                        ?? throw new UserFault(
                            $"Run {run.Start.Id} left no adapter.",
                            next: $"dotnet memopt runs show {run.Start.Id}"
                        ),
                    run
                );
        }
        IArtifactStore all = (IArtifactStore?)place.Account ?? place.Local;
        var found = all.List().Where(hash => hash.StartsWith(text, StringComparison.Ordinal)).ToList();
        return found.Count == 1
            ? (new("adapter", found[0], all.Files(found[0]).Sum(file => file.Bytes)), null)
            : throw new UserFault(
                found.Count == 0
                    ? $"There is no run, folder or artifact {text}."
                    : $"{found.Count} artifacts begin with {text}.",
                next: "dotnet memopt runs list, or: dotnet memopt artifacts ls"
            );
    }

    private static string Told(RegisteredAdapter adapter, AdapterVersion version)
    {
        var metric = RegisteredAdapter.Rule(adapter.Versions[^1].Best).Metric;
        return version.Metrics.TryGetValue(metric, out var value)
            ? $"{version.Number} ({metric} {RunsCommand.Brief(value)})"
            : $"{version.Number}";
    }

    private static object Brief(RegisteredAdapter adapter) =>
        new
        {
            name = adapter.Name,
            versions = adapter.Versions.Count,
            aliases = adapter.Aliases,
        };

    private static object Version(AdapterVersion version) =>
        new
        {
            number = version.Number,
            hash = version.Hash,
            bytes = version.Bytes,
            runId = version.Run,
            created = version.Created,
            metrics = version.Metrics,
            best = version.Best,
            data = version.Data,
        };

    private static void Act(Command command, Option<bool> json, Func<ParseResult, Place, int> action) =>
        command.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                        {
                            var config = CurrentProject.Here();
                            var (local, account) = (
                                CurrentProject.Artifacts((string?)null),
                                config is null ? null : ArtifactStores.Remote(config, stop)
                            );
                            return action(
                                parsed,
                                new(
                                    config is null ? new(local.Folder) : ArtifactStores.Registry(config, stop),
                                    local,
                                    account,
                                    config
                                )
                            );
                        }
                    )
                )
        );
}
