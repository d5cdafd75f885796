using System.CommandLine;
using System.Diagnostics;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary><c>pull</c>: downloads a model; run, eval, infer and export download theirs by the same methods.</summary>
internal static class PullCommand
{
    public static Command Create()
    {
        var source = new Argument<string>("source")
        {
            Description =
                "org/name, modelscope:org/name, https://host/folder or az://account/container/path; hf:org/name "
                + "is a data set.",
        };
        var revision = new Option<string?>("--revision")
        {
            Description = "Branch, tag or commit; the main branch when left out.",
        };
        var (offline, progress, json) = (Shell.OfflineOption(), Shell.ProgressOption(), Shell.JsonOption());
        var command = new Command(
            "pull",
            "Download a model: config, tokenizer and safetensors. Verifies each file and resumes an interrupted "
                + "download.\n\nExample:\n  dotnet memopt pull Qwen/Qwen2.5-0.5B\n  "
                + "/home/me/.cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B/snapshots/060db6…\n  "
                + "dotnet memopt pull Qwen/Qwen2.5-0.5B --progress json 2> progress.jsonl"
        )
        {
            source,
            revision,
            offline,
            progress,
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
            {
                var watch = Stopwatch.StartNew();
                var view = IRunView.For(parsed.GetValue(progress));
                var supplies = Supplies(parsed.GetValue(offline), view);
                var model = view.EndStopped(() =>
                    Fetch(parsed.GetValue(source)!, parsed.GetValue(revision), supplies, stop)
                );
                if (parsed.GetValue(json))
                    Print(model, watch.Elapsed);
                else
                    Console.Out.WriteLine(model.Folder);
                view.Finished(
                    new(StageNames.Finished, model.Folder) { Judged = $"{model.FetchedBytes:N0} bytes downloaded" }
                );
                return 0;
            }
        );
        return command;
    }

    private static Snapshot Fetch(string name, string? revision, InputFetcher supplies, CancellationToken stop)
    {
        if (!name.StartsWith(HubDataSet.Prefix, StringComparison.Ordinal))
            return supplies.FetchModel(ModelSource.Parse(name, Directory.GetCurrentDirectory()), revision, stop);
        var set = HubDataSet.Parse(name);
        return supplies.FetchData(revision is null ? set : set with { Revision = revision }, stop);
    }

    private static void Print(Snapshot model, TimeSpan elapsed) =>
        Shell.Print(
            new
            {
                source = model.Source,
                commit = model.Commit,
                folder = model.Folder,
                files = model.Files,
                fetchedBytes = model.FetchedBytes,
                resumedBytes = model.ResumedBytes,
                seconds = elapsed.TotalSeconds,
            }
        );

    /// <summary>The model, downloaded with progress on standard error unless the cache has it.</summary>
    public static Snapshot Fetch(
        ModelSource source,
        string? revision,
        bool offline,
        IRunView view,
        CancellationToken stop
    ) => Supplies(offline, view).FetchModel(source, revision, stop);

    /// <summary>A model's config, tokenizer and template without its weights.</summary>
    public static Snapshot FetchText(ModelSource source, string? revision, bool offline, CancellationToken stop) =>
        Supplies(offline, new ConsoleObserver()).Text(source, revision, stop);

    /// <summary>A model's config alone.</summary>
    public static Snapshot FetchConfig(ModelSource source, string? revision, bool offline, CancellationToken stop) =>
        Supplies(offline, new ConsoleObserver()).Config(source, revision, stop);

    /// <summary>The config with the data sets that its rows come from, downloaded like a model.</summary>
    public static ProjectConfig FetchData(ProjectConfig config, bool offline, IRunView view, CancellationToken stop) =>
        Supplies(offline, view).FetchData(config, stop);

    private static InputFetcher Supplies(bool offline, IRunView view) =>
        new(ProcessEnvironment.HubSettings(offline), () => view.Download());
}
