using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts ls|get|put|verify|sync|rm</c>: what trainings left, here and in a storage account.</summary>
internal static class ArtifactsCommand
{
    private const string about = "Its hash, or the start of it; or a registered adapter: NAME@3, NAME@best.";

    private sealed record Row(string Hash, int Files, long Bytes, bool Local, bool? Uploaded);

    /// <summary>The local artifacts, and the storage account behind them if there is one.</summary>
    private sealed record Places(LocalArtifacts Local, BlobArtifacts? Remote)
    {
        public IArtifactStore All => (IArtifactStore?)Remote ?? Local;

        public BlobArtifacts Account =>
            Remote
            ?? throw new UserFault(
                "No storage account is named.",
                next: "set tracking.artifacts to az://account/container/path, or add --at az://account/container/path"
            );

        /// <summary>The adapters registered among them.</summary>
        public AdapterRegistry Registry => new(Local.Folder, Remote);

        /// <summary>The hash that begins so, or that of a registered adapter.</summary>
        public string Find(string beginning)
        {
            if (
                beginning.Contains('@')
                || (!beginning.All(char.IsAsciiHexDigitLower) && AdapterRegistry.IsReference(beginning))
            )
            {
                ArtifactStores.TrySync(Registry, beginning.Split('@')[0], text => Shell.Progress.WriteLine(text));
                if (beginning.Contains('@') || Registry.Find(beginning) is not null)
                    return Registry.Resolve(beginning).Version.Hash;
            }
            // Of an empty text, such as a variable that is not set makes, everything is the rest.
            var found =
                beginning.Length == 0
                    ? []
                    : All.List().Where(hash => hash.StartsWith(beginning, StringComparison.Ordinal)).ToList();
            return found.Count == 1
                ? found[0]
                : throw new UserFault(
                    found.Count == 0
                        ? $"There is no artifact {beginning}."
                        : $"{found.Count} artifacts begin with {beginning}.",
                    next: "dotnet memopt artifacts ls"
                );
        }
    }

    public static Command Create() =>
        new(
            "artifacts",
            "Show, fetch, store, check, upload and remove artifacts: adapters and checkpoints by content hash.\n"
                + "\nExample:\n  dotnet memopt artifacts ls\n  dotnet memopt artifacts sync --at "
                + "az://account/container/adapters"
        )
        {
            List(),
            Get(),
            Put(),
            Verify(),
            Sync(),
            Remove(),
        };

    private static Command List()
    {
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command(
            "ls",
            "List artifacts and where they are.\n\nExample:\n  dotnet memopt artifacts ls --json"
        )
        {
            at,
            json,
        };
        Act(
            command,
            json,
            at,
            (parsed, places) =>
            {
                var (local, uploaded) = (places.Local.List().ToHashSet(), places.Remote?.Uploaded().ToHashSet());
                var rows = local
                    .Union(uploaded ?? [])
                    .Order(StringComparer.Ordinal)
                    .Select(hash =>
                    {
                        var files = places.All.Files(hash);
                        return new Row(
                            hash,
                            files.Count,
                            files.Sum(file => file.Bytes),
                            local.Contains(hash),
                            uploaded?.Contains(hash)
                        );
                    })
                    .ToList();
                if (parsed.GetValue(json))
                {
                    Shell.Print(rows);
                    return 0;
                }
                var table = new FittedTable("--json")
                    .AddColumn("artifact")
                    .AddColumn("files", right: true, rank: 3)
                    .AddColumn("size", right: true)
                    .AddColumn("where", rank: 1);
                foreach (var row in rows)
                    table.AddRow(
                        row.Hash,
                        $"{row.Files}",
                        LedgerTable.Size(row.Bytes),
                        (row.Local, row.Uploaded) switch
                        {
                            (true, true) => "here, uploaded",
                            (true, false) => "here only",
                            (true, null) => "here",
                            _ => "uploaded",
                        }
                    );
                Shell.Output.Write(table);
                return 0;
            }
        );
        return command;
    }

    private static Command Get()
    {
        var hash = new Argument<string>("artifact") { Description = about };
        var into = new Option<string>("--out")
        {
            Description = "The folder to write its files under.",
            Required = true,
        };
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command(
            "get",
            "Write an artifact's files into a folder, every hash checked; downloaded first where it is not "
                + "here.\n\nExample:\n  dotnet memopt artifacts get 3f2a --out adapter"
        )
        {
            hash,
            into,
            at,
            json,
        };
        Act(
            command,
            json,
            at,
            (parsed, places) =>
            {
                var (found, folder) = (places.Find(parsed.GetValue(hash)!), Full(parsed.GetValue(into)!));
                places.All.Get(found, folder);
                if (parsed.GetValue(json))
                    Shell.Print(
                        new
                        {
                            hash = found,
                            folder,
                            files = places.All.Files(found),
                        }
                    );
                else
                    Console.Out.WriteLine(folder);
                return 0;
            }
        );
        return command;
    }

    private static Command Put()
    {
        var path = new Argument<string>("path") { Description = "A folder or a file." };
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command(
            "put",
            "Store a folder or a file by its content, and upload it where a storage account is named; the same "
                + "content is stored once.\n\nExample:\n  dotnet memopt artifacts put .memopt/memopt/adapter\n  3f2a…"
        )
        {
            path,
            at,
            json,
        };
        Act(
            command,
            json,
            at,
            (parsed, places) =>
            {
                var source = Full(parsed.GetValue(path)!);
                if (!File.Exists(source) && !Directory.Exists(source))
                    throw new UserFault("There is nothing to store.", found: $"no file or folder {source}");
                var link = places.Local.Put(Path.GetFileName(source), source);
                var sent = places.Remote?.Push(link.Hash);
                if (parsed.GetValue(json))
                    Shell.Print(
                        new
                        {
                            hash = link.Hash,
                            bytes = link.Bytes,
                            sent,
                        }
                    );
                else
                    Console.Out.WriteLine(link.Hash);
                return 0;
            }
        );
        return command;
    }

    private static Command Verify()
    {
        var hash = HashesArgument();
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command(
            "verify",
            "Read all content, here and in the storage account, and say what is missing or was changed.\n\n"
                + "Example:\n  dotnet memopt artifacts verify\n  4 artifacts checked, 0 problems"
        )
        {
            hash,
            at,
            json,
        };
        Act(
            command,
            json,
            at,
            (parsed, places) =>
            {
                var hashes = parsed.GetValue(hash) is { Length: > 0 } named
                    ? named.Select(places.Find).ToList()
                    : places.All.List();
                var problems = hashes
                    .SelectMany(one => places.All.Verify(one).Select(problem => new { hash = one, problem }))
                    .ToList();
                if (parsed.GetValue(json))
                {
                    Shell.Print(new { artifacts = hashes.Count, problems });
                    return problems.Count == 0 ? 0 : 1;
                }
                foreach (var one in problems)
                    Shell.Output.WriteLine($"{one.hash[..12]}  {one.problem}");
                Console.Out.WriteLine($"{hashes.Count} artifacts checked, {problems.Count} problems");
                return problems.Count == 0 ? 0 : 1;
            }
        );
        return command;
    }

    private static Command Sync()
    {
        var hash = HashesArgument();
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command(
            "sync",
            "Upload what is only here, going on where an earlier upload was cut off. What the account has of an "
                + "artifact that is named is read, and sent again where it is missing or damaged.\n\nExample:\n  "
                + "dotnet memopt artifacts sync\n  1 artifact uploaded, 27 blocks, 52.4 MiB"
        )
        {
            hash,
            at,
            json,
        };
        Act(
            command,
            json,
            at,
            (parsed, places) =>
            {
                var account = places.Account;
                var named = parsed.GetValue(hash) is { Length: > 0 } some ? some.Select(places.Find).ToList() : null;
                using var runs = CurrentProject.Known();
                var (hashes, sent) = account.Sync(runs, named);
                places.Registry.Sync();
                if (parsed.GetValue(json))
                    Shell.Print(new { uploaded = hashes, sent });
                else
                    Console.Out.WriteLine(
                        $"{hashes.Count} {(hashes.Count == 1 ? "artifact" : "artifacts")} uploaded, {sent.Blocks} "
                            + $"blocks, {LedgerTable.Size(sent.Bytes)}"
                    );
                return 0;
            }
        );
        return command;
    }

    private static Command Remove()
    {
        var hash = new Argument<string[]>("artifacts") { Description = about, Arity = ArgumentArity.ZeroOrMore };
        var checkpoints = new Option<bool>("--checkpoints")
        {
            Description = "The uploaded checkpoints of all finished runs of this store.",
        };
        var force = new Option<bool>("--force")
        {
            Description = "Also what a run or the registry names, and while a run is training.",
        };
        var dry = new Option<bool>("--dry-run") { Description = "Say what would be removed and remove nothing." };
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command(
            "rm",
            "Remove artifacts, here and in the storage account; content that another artifact has stays. What a "
                + "run or the registry of adapters names is refused.\n\nExample:\n  dotnet memopt artifacts rm 3f2a "
                + "--dry-run\n  dotnet memopt artifacts rm --checkpoints"
        )
        {
            hash,
            checkpoints,
            force,
            dry,
            at,
            json,
        };
        Act(
            command,
            json,
            at,
            (parsed, places) =>
            {
                using var store = CurrentProject.Known();
                var runs = store?.Find(new RunQuery { Limit = int.MaxValue - 1 }).Runs ?? [];
                var all = places.All.List();
                ArtifactStores.TrySync(places.Registry, null, text => Shell.Progress.WriteLine(text));
                var versions = places
                    .Registry.List()
                    .SelectMany(adapter =>
                        adapter.Versions.Select(version => (version.Hash, Named: $"{adapter.Name}@{version.Number}"))
                    )
                    .ToLookup(one => one.Hash, one => one.Named);
                var named = parsed.GetValue(hash)!.Select(places.Find).Distinct().ToList();
                var spare = !parsed.GetValue(checkpoints)
                    ? []
                    : runs.Where(run => run.Status == RunStatus.Finished)
                        .SelectMany(run => run.Artifacts)
                        .Where(link =>
                            link.Name.StartsWith("checkpoint-", StringComparison.Ordinal) && all.Contains(link.Hash)
                        )
                        .Select(link => link.Hash)
                        .ToHashSet();
                if (named.Count == 0 && !parsed.GetValue(checkpoints))
                    throw new UserFault(
                        "No artifact is named.",
                        next: "name some: dotnet memopt artifacts rm HASH…, or use --checkpoints"
                    );
                var leaving = named.Union(spare).ToList();
                var contents = all.ToDictionary(one => one, places.All.Files);
                var kept = contents
                    .Where(one => !leaving.Contains(one.Key))
                    .SelectMany(one => one.Value)
                    .Select(file => file.Hash)
                    .ToHashSet();
                var rows = leaving
                    .Select(one => new
                    {
                        hash = one,
                        bytes = contents[one].Sum(file => file.Bytes),
                        freed = contents[one]
                            .DistinctBy(file => file.Hash)
                            .Where(file => !kept.Contains(file.Hash))
                            .Sum(file => file.Bytes),
                        namedBy = runs.SelectMany(run =>
                                run.Artifacts.Where(link => link.Hash == one)
                                    .Select(link => $"run {run.Start.Id} ({link.Name})")
                            )
                            .Concat(versions[one])
                            .ToList(),
                    })
                    .ToList();
                if (!parsed.GetValue(force))
                {
                    if (
                        rows.FirstOrDefault(row =>
                            row.namedBy.Count > 0 && (!spare.Contains(row.hash) || versions[row.hash].Any())
                        ) is
                        { } bound
                    )
                        throw new UserFault(
                            $"Artifact {bound.hash[..12]} is named by {string.Join(", ", bound.namedBy)}.",
                            next: "add --force to remove it all the same; dotnet memopt runs gc removes runs"
                        )
                        {
                            Failed = true,
                        };
                    if (leaving.Count > 0 && runs.FirstOrDefault(run => run.Status == RunStatus.Running) is { } busy)
                        throw new UserFault(
                            $"Run {busy.Start.Id} is training and may be storing what has the same content.",
                            next: "wait for it, or add --force"
                        )
                        {
                            Failed = true,
                        };
                }
                if (!parsed.GetValue(dry))
                {
                    foreach (var row in rows)
                    {
                        places.All.Delete(row.hash);
                        foreach (
                            var run in runs.Where(run =>
                                run.Status != RunStatus.Running && run.Artifacts.Any(link => link.Hash == row.hash)
                            )
                        )
                        {
                            using var record = store!.Amend(run.Start.Id);
                            foreach (var link in run.Artifacts.Where(link => link.Hash == row.hash))
                                record.Link(link with { Place = null });
                        }
                    }
                }
                if (parsed.GetValue(json))
                {
                    Shell.Print(new { applied = !parsed.GetValue(dry), artifacts = rows });
                    return 0;
                }
                foreach (var row in rows)
                {
                    var shared = LedgerTable.Size(row.bytes - row.freed);
                    var stays = row.freed < row.bytes ? $", of which {shared} stays for other artifacts" : "";
                    var names = string.Join(", ", row.namedBy);
                    Shell.Output.WriteLine($"{row.hash[..12]}  {LedgerTable.Size(row.bytes)}{stays}  {names}");
                }
                var freed = leaving
                    .SelectMany(one => contents[one])
                    .DistinctBy(file => file.Hash)
                    .Where(file => !kept.Contains(file.Hash))
                    .Sum(file => file.Bytes);
                Console.Out.WriteLine(
                    $"{(parsed.GetValue(dry) ? "Would remove" : "Removed")} {rows.Count} "
                        + $"{(rows.Count == 1 ? "artifact" : "artifacts")}, {LedgerTable.Size(freed)}, here"
                        + $"{(places.Remote is { } account ? $" and in {account.Place}" : "")}."
                );
                return 0;
            }
        );
        return command;
    }

    /// <summary>A path that the command line gives; an empty one is what a variable that is not set makes.</summary>
    private static string Full(string path) =>
        path.Length > 0 ? Path.GetFullPath(path) : throw new UserFault("A path is empty.");

    private static Option<string?> AtOption() =>
        new("--at")
        {
            Description = "A folder of artifacts, or az://account/container/path, in place of the config's.",
        };

    private static Argument<string[]> HashesArgument() =>
        new("artifacts") { Description = about + " All when left out.", Arity = ArgumentArity.ZeroOrMore };

    private static void Act(
        Command command,
        Option<bool> json,
        Option<string?> at,
        Func<ParseResult, Places, int> action
    ) =>
        command.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                        {
                            var place = parsed.GetValue(at);
                            var local =
                                place is null || BlobLocation.Is(place)
                                    ? CurrentProject.Artifacts((string?)null)
                                    : new LocalArtifacts(place);
                            var remote = place is not null
                                ? BlobLocation.Is(place)
                                    ? new BlobArtifacts(local, ProcessEnvironment.BlobPlace(place)) { Stop = stop }
                                    : null
                                : CurrentProject.Here() is { } config
                                    ? ArtifactStores.Remote(config, stop)
                                    : null;
                            return action(parsed, new(local, remote));
                        }
                    )
                )
        );
}
