using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Weights;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>adapters register</c>: makes an adapter a name's next version.</summary>
internal static class AdaptersRegister
{
    public static Command Create()
    {
        var name = new Argument<string>("name") { Description = "The adapter's name; created if it is new." };
        var source = new Argument<string>("source")
        {
            Description = "A run's id or an artifact's hash, or a prefix of either; or a folder in PEFT's layout.",
        };
        var json = Shell.JsonOption();
        var command = new Command(
            "register",
            "Register an adapter as the next version of a name. A finished run registers its adapter under "
                + "tracking.register or its experiment.\n\nExample:\n  "
                + "dotnet memopt adapters register word-class 261124\n  word-class@4"
        )
        {
            name,
            source,
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
                Run(AdapterPlaces.Here(stop), parsed.GetValue(name)!, parsed.GetValue(source)!, parsed.GetValue(json))
        );
        return command;
    }

    private static int Run(AdapterPlaces places, string name, string source, bool json)
    {
        var (link, run) = Find(places, source);
        var registry = places.Known(name);
        var before = registry.Find(name);
        var version = registry.Register(
            name,
            link,
            run,
            places.Config?.Settings.Tracking.Best ?? new TrackingConfig().Best,
            again: true
        )!;
        places.Account?.Push(version.Hash);
        places.Share(name);
        var after = registry.Find(name)!;
        // Its number may be another by now.
        var shared = after.Versions.First(one => one.Hash == version.Hash && one.Run == version.Run);
        if (json)
            Shell.Print(new { name, version = AdaptersCommand.Version(shared) });
        else
            Console.Out.WriteLine($"{name}@{shared.Number}");
        if (after.NotCompared(before) is { } was)
            Shell.Progress.WriteLine(
                $"{name}@{was.Number}, the best before, was judged on other evaluation data; the two are "
                    + "not compared."
            );
        return 0;
    }

    /// <summary>The artifact that is to be registered, and the run it is of.</summary>
    private static (ArtifactLink Link, Run? Run) Find(AdapterPlaces places, string source)
    {
        if (Directory.Exists(source))
        {
            var folder = Path.GetFullPath(source);
            PeftAdapter.Described(folder);
            return (places.Local.Put("adapter", folder), null);
        }
        using (var store = CurrentProject.Known())
        {
            if (store?.Get(source) is { } run)
                return (OfRun(run), run);
        }
        return (OfHash(places, source), null);
    }

    private static ArtifactLink OfRun(Run run) =>
        run.Artifacts.FirstOrDefault(link => link.Name == "adapter")
        ?? throw new UserFault($"Run {run.Start.Id} left no adapter.", next: $"dotnet memopt runs show {run.Start.Id}");

    private static ArtifactLink OfHash(AdapterPlaces places, string beginning)
    {
        IArtifactStore all = (IArtifactStore?)places.Account ?? places.Local;
        var hash = ArtifactPlaces.OneOf(
            all,
            beginning,
            "run, folder or artifact",
            "dotnet memopt runs list, or: dotnet memopt artifacts ls"
        );
        return new("adapter", hash, all.Files(hash).Sum(file => file.Bytes));
    }
}
