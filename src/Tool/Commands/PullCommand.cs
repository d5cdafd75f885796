using System.CommandLine;
using System.Diagnostics;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Config;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary><c>pull</c>: brings a model here; the same is done inside run, eval, infer and export.</summary>
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
        var (offline, json) = (Shell.OfflineOption(), Shell.JsonOption());
        var command = new Command(
            "pull",
            "Download a model: only config, tokenizer and safetensors, checked, resumed where an earlier "
                + "download was cut off.\n\nExample:\n  dotnet memopt pull Qwen/Qwen2.5-0.5B\n  "
                + "/home/me/.cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B/snapshots/060db6…"
        )
        {
            source,
            revision,
            offline,
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
            {
                var watch = Stopwatch.StartNew();
                var model = Fetch(
                    parsed.GetValue(source)!,
                    parsed.GetValue(revision),
                    Supplies(parsed.GetValue(offline)),
                    stop
                );
                if (parsed.GetValue(json))
                    Print(model, watch.Elapsed);
                else
                    Console.Out.WriteLine(model.Folder);
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

    /// <summary>The model, brought here with progress on standard error when it is not here yet.</summary>
    public static Snapshot Fetch(ModelSource source, string? revision, bool offline, CancellationToken stop) =>
        Supplies(offline).FetchModel(source, revision, stop);

    /// <summary>A model's config, tokenizer and template without its weights.</summary>
    public static Snapshot FetchText(ModelSource source, string? revision, bool offline, CancellationToken stop) =>
        Supplies(offline).Text(source, revision, stop);

    /// <summary>A model's config alone.</summary>
    public static Snapshot FetchConfig(ModelSource source, string? revision, bool offline, CancellationToken stop) =>
        Supplies(offline).Config(source, revision, stop);

    /// <summary>The config with the data sets that its rows come from, brought here like a model.</summary>
    public static ProjectConfig FetchData(ProjectConfig config, bool offline, CancellationToken stop) =>
        Supplies(offline).FetchData(config, stop);

    private static InputFetcher Supplies(bool offline) =>
        new(ProcessEnvironment.HubSettings(offline), () => new PullProgress());
}
