using System.CommandLine;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands.Runs;

/// <summary><c>runs doctor|backup|export|import|gc</c>: looking after a store.</summary>
internal static class RunsMaintenance
{
    public static Command Doctor()
    {
        var repair = new Option<bool>("--repair")
        {
            Description = "Mend what can be mended; what is replaced stays under another name.",
        };
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(
            "doctor",
            "Read the whole store and say what is wrong with it.\n\nExample:\n  dotnet memopt runs doctor --repair"
        )
        {
            repair,
            store,
            json,
        };
        command.SetAction(parsed =>
            Shell.Guard(
                parsed.GetValue(json),
                () =>
                {
                    using var runs = CurrentProject.Store(parsed.GetValue(store));
                    var problems = runs.Check(parsed.GetValue(repair));
                    if (parsed.GetValue(json))
                        Shell.Print(problems);
                    foreach (var problem in parsed.GetValue(json) ? [] : problems)
                        Shell.Output.WriteLine($"{problem.File}: {problem.Text}{(problem.Mended ? " (mended)" : "")}");
                    if (problems.Count == 0)
                        Shell.Progress.WriteLine("Nothing is wrong.");
                    else if (!problems.All(problem => problem.Mended))
                        Shell.Progress.WriteLine("next:  dotnet memopt runs doctor --repair");
                    return problems.All(problem => problem.Mended) ? 0 : 1;
                }
            )
        );
        return command;
    }

    public static Command Backup() =>
        Out(
            "backup",
            "Write all runs and the artifacts they name into one file.\n\nExample:\n  dotnet memopt runs backup "
                + "runs-2026-11-25.zip",
            whole: true
        );

    public static Command Export() =>
        Out(
            "export",
            "Write some runs into one file, for another store.\n\nExample:\n  dotnet memopt runs export best.zip "
                + "261124a 261124b --artifacts",
            whole: false
        );

    private static Command Out(string name, string description, bool whole)
    {
        var file = new Argument<string>("file") { Description = "The file to write, a zip." };
        var ids = new Argument<string[]>("runs") { Description = "Ids of the runs, or starts of them." };
        var with = new Option<bool>("--artifacts") { Description = "Also what the runs link to." };
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(name, description) { file, store, json };
        if (!whole)
        {
            command.Add(ids);
            command.Add(with);
        }
        command.SetAction(parsed =>
            Shell.Guard(
                parsed.GetValue(json),
                () =>
                {
                    using var runs = CurrentProject.Store(parsed.GetValue(store));
                    var chosen = whole
                        ? null
                        : parsed.GetValue(ids)!.Select(id => RunsCommand.Need(runs, id).Start.Id).ToList();
                    if (chosen is { Count: 0 })
                        throw new UserFault(
                            "No run was named.",
                            next: "name runs, or write all of them: dotnet memopt runs backup FILE"
                        );
                    var count = runs.Export(
                        parsed.GetValue(file)!,
                        chosen,
                        whole || parsed.GetValue(with) ? CurrentProject.Artifacts(parsed.GetValue(store)) : null
                    );
                    if (parsed.GetValue(json))
                        Shell.Print(new { file = parsed.GetValue(file), runs = count });
                    else
                        Shell.Progress.WriteLine(
                            $"{count} runs in {parsed.GetValue(file)}; bring them in with: dotnet memopt runs "
                                + $"import {parsed.GetValue(file)}"
                        );
                    return 0;
                }
            )
        );
        return command;
    }

    public static Command Import()
    {
        var path = new Argument<string>("path")
        {
            Description = "A file that export or backup wrote, or the folder of another store.",
        };
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(
            "import",
            "Bring in runs; what is here already is passed over.\n\nExample:\n  dotnet memopt runs import best.zip"
        )
        {
            path,
            store,
            json,
        };
        command.SetAction(parsed =>
            Shell.Guard(
                parsed.GetValue(json),
                () =>
                {
                    var from = parsed.GetValue(path)!;
                    if (!File.Exists(from) && !Directory.Exists(from))
                        throw new UserFault(
                            "There is nothing to import.",
                            found: $"no file or folder {Path.GetFullPath(from)}"
                        );
                    using var runs = CurrentProject.Store(parsed.GetValue(store), create: true);
                    var imported = runs.Import(from, CurrentProject.Artifacts(parsed.GetValue(store)));
                    if (parsed.GetValue(json))
                        Shell.Print(imported);
                    else
                        Shell.Progress.WriteLine(
                            $"{imported.Runs.Count} runs brought in, {imported.Known} were here, "
                                + $"{imported.Artifacts} artifacts"
                        );
                    return 0;
                }
            )
        );
        return command;
    }

    public static Command Collect()
    {
        var filter = new Option<string?>("--filter")
        {
            Description = "Runs to remove, as in runs list; without --filter and --older-than none are.",
        };
        filter.Validators.Add(result =>
        {
            if (result.Tokens.Any(token => string.IsNullOrWhiteSpace(token.Value)))
                result.AddError("--filter is empty.");
        });
        var older = Shell.NumberOption<int>(
            "--older-than",
            "Only runs that began more than so many days ago.",
            "from 0 to 36500 days",
            days => days is >= 0 and <= 36_500
        );
        var apply = new Option<bool>("--apply") { Description = "Apply the changes (default: dry run)." };
        var (store, json) = (RunsCommand.StoreOption(), Shell.JsonOption());
        var command = new Command(
            "gc",
            "Remove runs, their checkpoints, their versions of registered adapters unless an alias of yours "
                + "means them, and artifacts that nothing names. Shows what it would do unless --apply is given.\n\n"
                + "Example:\n  dotnet memopt runs gc --filter \"status in ('failed', 'interrupted')\" --older-than 30"
        )
        {
            filter,
            older,
            apply,
            store,
            json,
        };
        command.SetAction(parsed =>
            Shell.Guard(
                parsed.GetValue(json),
                () =>
                {
                    using var runs = CurrentProject.Store(parsed.GetValue(store));
                    var (artifacts, really) = (
                        CurrentProject.Artifacts(parsed.GetValue(store)),
                        parsed.GetValue(apply)
                    );
                    var all = runs.Find(new RunQuery { Limit = int.MaxValue - 1, Deleted = null }).Runs;
                    var before = parsed.GetValue(older) is { } days
                        ? DateTimeOffset.UtcNow.AddDays(-days)
                        : (DateTimeOffset?)null;
                    var leaving =
                        parsed.GetValue(filter) is null && before is null
                            ? []
                            : runs.Find(
                                    new RunQuery
                                    {
                                        Filter = parsed.GetValue(filter),
                                        Limit = int.MaxValue - 1,
                                        Deleted = null,
                                    }
                                )
                                .Runs.Where(run =>
                                    run.Status != RunStatus.Running && (before is null || run.Start.Started < before)
                                )
                                .ToList();
                    var gone = leaving.Select(run => run.Start.Id).ToHashSet();
                    var checkpoints = Checkpoints(parsed.GetValue(store), gone).ToList();
                    // A run that trains may have stored what it has not linked to yet.
                    var busy = all.Any(run => run.Status == RunStatus.Running);
                    // A version goes with its run, unless somebody gave it an alias.
                    var registry = new AdapterRegistry(artifacts.Folder);
                    var versions = registry
                        .List()
                        .SelectMany(adapter =>
                            adapter.Versions.Select(version =>
                                (
                                    adapter.Name,
                                    Version: version,
                                    Leaves: version.Run is not null
                                        && gone.Contains(version.Run)
                                        && !adapter.Named(version)
                                )
                            )
                        )
                        .ToList();
                    var unnamed = versions
                        .Where(version => version.Leaves)
                        .Select(version => (version.Name, version.Version.Number))
                        .ToList();
                    var named = all.Where(run => !gone.Contains(run.Start.Id))
                        .SelectMany(run => run.Artifacts)
                        .Select(link => link.Hash)
                        .Concat(versions.Where(version => !version.Leaves).Select(version => version.Version.Hash))
                        .ToHashSet();
                    var orphans = busy ? [] : artifacts.List().Where(hash => !named.Contains(hash)).ToList();
                    if (really)
                    {
                        // What a run left before the run itself: after a kill it is found again.
                        checkpoints.ForEach(folder => Directory.Delete(folder, recursive: true));
                        unnamed.ForEach(version => registry.Remove(version.Name, version.Number));
                        leaving.ForEach(run => runs.Remove(run.Start.Id));
                        orphans.ForEach(artifacts.Delete);
                    }
                    if (parsed.GetValue(json))
                    {
                        Shell.Print(
                            new
                            {
                                applied = really,
                                runs = gone,
                                checkpoints,
                                versions = unnamed.Select(version => $"{version.Name}@{version.Number}"),
                                artifacts = orphans,
                            }
                        );
                        return 0;
                    }
                    foreach (var run in leaving)
                        Shell.Output.WriteLine(
                            $"run         {run.Start.Id}  {run.Start.Started:yyyy-MM-dd}  "
                                + $"{run.Status.ToString().ToLowerInvariant()}  {run.Start.Experiment}"
                        );
                    checkpoints.ForEach(folder => Shell.Output.WriteLine($"checkpoint  {folder}"));
                    unnamed.ForEach(version => Shell.Output.WriteLine($"adapter     {version.Name}@{version.Number}"));
                    orphans.ForEach(hash => Shell.Output.WriteLine($"artifact    {hash}"));
                    Shell.Progress.WriteLine(
                        $"{(really ? "Removed" : "Would remove")} {leaving.Count} runs, {checkpoints.Count} "
                            + $"checkpoints, {orphans.Count} artifacts"
                            + $"{(busy ? " (artifacts wait: a run is training)" : "")}"
                            + $"{(really || leaving.Count + orphans.Count == 0 ? "." : "; add --apply to do it.")}"
                    );
                    return 0;
                }
            )
        );
        return command;
    }

    /// <summary>Checkpoints of some runs, beside the configs of this folder.</summary>
    internal static IEnumerable<string> Checkpoints(string? store, HashSet<string> runs)
    {
        var root = Path.GetDirectoryName(CurrentProject.StoreFolder(store))!;
        if (!Directory.Exists(root))
            yield break;
        foreach (
            var manifest in Directory
                .EnumerateDirectories(
                    root,
                    "checkpoints",
                    new EnumerationOptions { RecurseSubdirectories = true, MaxRecursionDepth = 3 }
                ) // those of a sweep lie two folders deeper
                .SelectMany(folder => Directory.EnumerateDirectories(folder, "step-*"))
                .Select(folder => Path.Combine(folder, "manifest.json"))
                .Where(File.Exists)
        )
        {
            if (JsonNode.Parse(File.ReadAllBytes(manifest))?["runId"] is { } id && runs.Contains((string)id!))
                yield return Path.GetDirectoryName(manifest)!;
        }
    }
}
