using System.CommandLine;
using System.Diagnostics;
using Memopt.Tool.Views;
using Memopt.Trainer;
using Memopt.Trainer.Hub;

namespace Memopt.Tool.Commands;

/// <summary><c>pull</c>: brings a model here; the same is done inside run, eval, infer and export.</summary>
internal static class PullCommand
{
    public static Command Create()
    {
        var source = new Argument<string>("source") { Description = "org/name, modelscope:org/name, https://host/folder or az://account/container/path; hf:org/name is a data set." };
        var revision = new Option<string?>("--revision") { Description = "Branch, tag or commit; the main branch when left out." };
        var (offline, json) = (Shell.OfflineOption(), Shell.JsonOption());
        var command = new Command("pull", "Download a model: only config, tokenizer and safetensors, checked, resumed where an earlier download was cut off.\n\nExample:\n  dotnet memopt pull Qwen/Qwen2.5-0.5B\n  /home/me/.cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B/snapshots/060db6…") { source, revision, offline, json };
        command.SetAction((parsed, stop) => Task.FromResult(Shell.Guard(parsed.GetValue(json), () =>
        {
            var watch = Stopwatch.StartNew();
            var (name, at) = (parsed.GetValue(source)!, parsed.GetValue(revision));
            var model = name.StartsWith(DataSource.HubPrefix, StringComparison.Ordinal) ? Bring(HubDataSet.Parse(name) is var set && at is not null ? set with { Revision = at } : set, parsed.GetValue(offline), stop)
                : Bring(ModelSource.Parse(name, Directory.GetCurrentDirectory()), at, parsed.GetValue(offline), stop);
            if (parsed.GetValue(json))
                Shell.Print(new { source = model.Source, commit = model.Commit, folder = model.Folder, files = model.Files, fetchedBytes = model.FetchedBytes, resumedBytes = model.ResumedBytes, seconds = watch.Elapsed.TotalSeconds });
            else
                Console.Out.WriteLine(model.Folder);
            return 0;
        })));
        return command;
    }

    /// <summary>The model, brought here with progress on standard error when it is not here yet.</summary>
    public static LocalModel Bring(ModelSource source, string? revision, bool offline, CancellationToken stop)
    {
        using var hub = new ModelHub(Shell.HubSettings(offline));
        if (!source.Remote)
            return hub.PullAsync(source, revision, new QuietPull(), stop).GetAwaiter().GetResult();
        using var progress = new PullProgress();
        return hub.PullAsync(source, revision, progress, stop).GetAwaiter().GetResult();
    }

    /// <summary>A model's config, tokenizer and template without its weights.</summary>
    public static LocalModel BringText(ModelSource source, string? revision, bool offline, CancellationToken stop)
    {
        using var hub = new ModelHub(Shell.HubSettings(offline));
        return hub.TextAsync(source, revision, new QuietPull(), stop).GetAwaiter().GetResult();
    }

    /// <summary>The config with the data sets that its rows come from, brought here like a model.</summary>
    public static LoadedConfig BringData(LoadedConfig config, bool offline, CancellationToken stop)
    {
        var sources = config.Config.Data.Train.List.Concat(config.Config.Data.Eval?.List ?? []).Where(source => source.Remote).Select(source => source.Source).Distinct();
        return config with { Located = sources.ToDictionary(source => source, source => Bring(HubDataSet.Parse(source), offline, stop)) };
    }

    private static LocalModel Bring(HubDataSet source, bool offline, CancellationToken stop)
    {
        using var hub = new ModelHub(Shell.HubSettings(offline));
        using var progress = new PullProgress();
        return hub.DataAsync(source, progress, stop).GetAwaiter().GetResult();
    }

    /// <summary>Says nothing: for what is here already or takes no time.</summary>
    internal sealed class QuietPull : IPullWatcher
    {
        public void Note(string text)
        {
        }

        public void Advance(string file, long done, long size, long resumed)
        {
        }
    }
}
