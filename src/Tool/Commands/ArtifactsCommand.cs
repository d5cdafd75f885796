using System.CommandLine;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts ls|get|put|verify|sync</c>: what trainings left, here and in a storage account.</summary>
internal static class ArtifactsCommand
{
    private const string about = "Its hash, or the start of it.";

    private sealed record Row(string Hash, int Files, long Bytes, bool Local, bool? Uploaded);

    /// <summary>The local artifacts, and the storage account behind them if there is one.</summary>
    private sealed record Places(LocalArtifacts Local, BlobArtifacts? Remote)
    {
        public IArtifactStore All => (IArtifactStore?)Remote ?? Local;

        public BlobArtifacts Account => Remote ?? throw new UserFault("No storage account is named.", next: "set tracking.artifacts to az://account/container/path, or add --at az://account/container/path");

        /// <summary>The hash that begins so.</summary>
        public string Find(string beginning)
        {
            var found = All.List().Where(hash => hash.StartsWith(beginning, StringComparison.Ordinal)).ToList();
            return found.Count == 1 ? found[0] : throw new UserFault(found.Count == 0 ? $"There is no artifact {beginning}." : $"{found.Count} artifacts begin with {beginning}.", next: "dotnet memopt artifacts ls");
        }
    }

    public static Command Create() => new("artifacts", "Show, fetch, store, check and upload artifacts: adapters by content hash.\n\nExample:\n  dotnet memopt artifacts ls\n  dotnet memopt artifacts sync --at az://account/container/adapters") { List(), Get(), Put(), Verify(), Sync() };

    private static Command List()
    {
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command("ls", "List artifacts and where they are.\n\nExample:\n  dotnet memopt artifacts ls --json") { at, json };
        Act(command, json, at, (parsed, places) =>
        {
            var (local, uploaded) = (places.Local.List().ToHashSet(), places.Remote?.Uploaded().ToHashSet());
            var rows = local.Union(uploaded ?? []).Order(StringComparer.Ordinal).Select(hash =>
            {
                var files = places.All.Files(hash);
                return new Row(hash, files.Count, files.Sum(file => file.Bytes), local.Contains(hash), uploaded?.Contains(hash));
            }).ToList();
            if (parsed.GetValue(json))
            {
                Shell.Print(rows);
                return 0;
            }
            var table = new Table().Border(TableBorder.Simple).AddColumn("artifact").AddColumn(new TableColumn("files").RightAligned()).AddColumn(new TableColumn("size").RightAligned()).AddColumn("where");
            foreach (var row in rows)
                table.AddRow(row.Hash, $"{row.Files}", LedgerTable.Size(row.Bytes), (row.Local, row.Uploaded) switch { (true, true) => "here, uploaded", (true, false) => "here only", (true, null) => "here", _ => "uploaded" });
            Shell.Output.Write(table);
            return 0;
        });
        return command;
    }

    private static Command Get()
    {
        var hash = new Argument<string>("artifact") { Description = about };
        var into = new Option<string>("--out") { Description = "The folder to write its files under.", Required = true };
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command("get", "Write an artifact's files into a folder, every hash checked; downloaded first where it is not here.\n\nExample:\n  dotnet memopt artifacts get 3f2a --out adapter") { hash, into, at, json };
        Act(command, json, at, (parsed, places) =>
        {
            var (found, folder) = (places.Find(parsed.GetValue(hash)!), Path.GetFullPath(parsed.GetValue(into)!));
            places.All.Get(found, folder);
            if (parsed.GetValue(json))
                Shell.Print(new { hash = found, folder, files = places.All.Files(found) });
            else
                Console.Out.WriteLine(folder);
            return 0;
        });
        return command;
    }

    private static Command Put()
    {
        var path = new Argument<string>("path") { Description = "A folder or a file." };
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command("put", "Store a folder or a file by its content, and upload it where a storage account is named; the same content is stored once.\n\nExample:\n  dotnet memopt artifacts put .memopt/memopt/adapter\n  3f2a…") { path, at, json };
        Act(command, json, at, (parsed, places) =>
        {
            var source = Path.GetFullPath(parsed.GetValue(path)!);
            if (!File.Exists(source) && !Directory.Exists(source))
                throw new UserFault("There is nothing to store.", found: $"no file or folder {source}");
            var link = places.Local.Put(Path.GetFileName(source), source);
            var sent = places.Remote?.Push(link.Hash);
            if (parsed.GetValue(json))
                Shell.Print(new { hash = link.Hash, bytes = link.Bytes, sent });
            else
                Console.Out.WriteLine(link.Hash);
            return 0;
        });
        return command;
    }

    private static Command Verify()
    {
        var hash = HashesArgument();
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command("verify", "Read all content, here and in the storage account, and say what is missing or was changed.\n\nExample:\n  dotnet memopt artifacts verify\n  4 artifacts checked, 0 problems") { hash, at, json };
        Act(command, json, at, (parsed, places) =>
        {
            var hashes = parsed.GetValue(hash) is { Length: > 0 } named ? named.Select(places.Find).ToList() : places.All.List();
            var problems = hashes.SelectMany(one => places.All.Verify(one).Select(problem => new { hash = one, problem })).ToList();
            if (parsed.GetValue(json))
            {
                Shell.Print(new { artifacts = hashes.Count, problems });
                return problems.Count == 0 ? 0 : 1;
            }
            foreach (var one in problems)
                Shell.Output.WriteLine($"{one.hash[..12]}  {one.problem}");
            Console.Out.WriteLine($"{hashes.Count} artifacts checked, {problems.Count} problems");
            return problems.Count == 0 ? 0 : 1;
        });
        return command;
    }

    private static Command Sync()
    {
        var hash = HashesArgument();
        var (at, json) = (AtOption(), Shell.JsonOption());
        var command = new Command("sync", "Upload what is only here, going on where an earlier upload was cut off. An artifact that is named is sent as far as the account lacks its content.\n\nExample:\n  dotnet memopt artifacts sync\n  1 artifact uploaded, 14 blocks, 52.4 MiB") { hash, at, json };
        Act(command, json, at, (parsed, places) =>
        {
            var account = places.Account;
            var hashes = parsed.GetValue(hash) is { Length: > 0 } named ? named.Select(places.Find).ToList() : places.Local.List().Except(account.Uploaded()).ToList();
            var sent = hashes.Select(account.Push).Aggregate(new Sent(0, 0), (sum, one) => new(sum.Blocks + one.Blocks, sum.Bytes + one.Bytes));
            if (parsed.GetValue(json))
                Shell.Print(new { uploaded = hashes, sent });
            else
                Console.Out.WriteLine($"{hashes.Count} {(hashes.Count == 1 ? "artifact" : "artifacts")} uploaded, {sent.Blocks} blocks, {LedgerTable.Size(sent.Bytes)}");
            return 0;
        });
        return command;
    }

    private static Option<string?> AtOption() => new("--at") { Description = "A folder of artifacts, or az://account/container/path, in place of the config's." };

    private static Argument<string[]> HashesArgument() => new("artifacts") { Description = about + " All when left out.", Arity = ArgumentArity.ZeroOrMore };

    private static void Act(Command command, Option<bool> json, Option<string?> at, Func<ParseResult, Places, int> action) => command.SetAction((parsed, stop) => Task.FromResult(Shell.Guard(parsed.GetValue(json), () =>
    {
        var place = parsed.GetValue(at);
        var local = place is null || BlobPlace.Is(place) ? Workplace.Artifacts((string?)null) : new LocalArtifacts(place);
        var remote = place is not null ? BlobPlace.Is(place) ? Workplace.Remote(place, local, stop) : null
            : File.Exists(Workplace.DefaultConfig) ? Workplace.Remote(RunConfigFile.Read(Workplace.DefaultConfig, [], checkFiles: false), stop) : null;
        return action(parsed, new(local, remote));
    })));
}
