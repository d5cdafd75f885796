using System.CommandLine;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Checkpoints;
using Memopt.Trainer.Config;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;
using Memopt.Trainer.Weights;

namespace Memopt.Tool.Commands;

/// <summary>The options by which eval, infer and export name a model and what is laid over it.</summary>
internal sealed class ModelOptions
{
    private IRunView view = new ConsoleObserver();
    private string? folder,
        adapterFolder;
    private ProjectConfig? trained;

    public Option<string?> Config { get; } =
        new("--config") { Description = "A trained config; its model and adapter replace --model and --adapter." };
    public Option<string> Model { get; } =
        new("--model")
        {
            Description =
                "Model folder, embedded:nano, or a model to download: org/name, modelscope:org/name, https://…, az://…",
            DefaultValueFactory = _ => ModelHub.Nano,
        };
    public Option<string?> Revision { get; } =
        new("--revision") { Description = "Branch, tag or commit of a downloaded model." };
    public Option<bool> Offline { get; } = Shell.OfflineOption();
    public Option<string?> Adapter { get; } =
        new("--adapter")
        {
            Description = "Adapter folder in PEFT's layout, or a registered adapter: NAME, NAME@best, NAME@3.",
        };
    public Option<string?> Quantize { get; } =
        new("--quantize")
        {
            Description =
                "Form of the base: nf4, fp4 (4 bits) or none. The default is the form in the adapter's training.",
            CompletionSources = { "nf4", "fp4", "none" },
        };
    public Option<string?> Dtype { get; } =
        new("--dtype")
        {
            Description = "Compute type: auto, float32 or bfloat16. The default is the type in the adapter's training.",
            CompletionSources = { "auto", "float32", "bfloat16" },
        };
    public Option<string?> Backend { get; } = Shell.BackendOption();

    public void AddTo(Command command)
    {
        foreach (var option in new Option[] { Config, Model, Revision, Offline, Adapter, Quantize, Dtype, Backend })
            command.Options.Add(option);
    }

    /// <summary>Shows downloads and loading; on the console unless a command says otherwise.</summary>
    public void ShowOn(IRunView shown) => view = shown;

    /// <summary>The model's folder; downloads the model unless it is on this machine.</summary>
    public string Folder(ParseResult parsed, CancellationToken stop = default) =>
        folder ??=
            Full(parsed) ? AdapterFolder(parsed)!
            : Trained(parsed) is { } config
                ? PullCommand
                    .Fetch(
                        ModelSource.Parse(config.Settings.Model.Source, config.Folder),
                        config.Settings.Model.Revision,
                        parsed.GetValue(Offline),
                        view,
                        stop
                    )
                    .Folder
            : PullCommand
                .Fetch(
                    ModelSource.Parse(parsed.GetValue(Model)!, Directory.GetCurrentDirectory()),
                    parsed.GetValue(Revision),
                    parsed.GetValue(Offline),
                    view,
                    stop
                )
                .Folder;

    /// <summary>The model as it is named.</summary>
    public string Source(ParseResult parsed) => Trained(parsed)?.Settings.Model.Source ?? parsed.GetValue(Model)!;

    /// <summary>The adapter's folder, or null when none is named; brings a registered one here first. Of a full
    /// fine-tune it holds the model.</summary>
    public string? AdapterFolder(ParseResult parsed) =>
        adapterFolder ??=
            Trained(parsed) is { } config ? CurrentProject.Result(config.File)
            : parsed.GetValue(Adapter) is { } named ? CurrentProject.Adapter(named, parsed.GetValue(Offline), view)
            : null;

    private bool Full(ParseResult parsed) => Trained(parsed)?.Settings.Adapter.Kind == AdapterKind.None;

    /// <summary>The config that was trained, or null when none is named.</summary>
    public ProjectConfig? Trained(ParseResult parsed) =>
        trained ??= parsed.GetValue(Config) is { } file ? RunConfigFile.Read(file, [], checkFiles: false) : null;

    /// <summary>Loads the model and its adapter. The base is kept as it was when the adapter was trained, which a
    /// config says, or else the adapter itself, unless --quantize and --dtype say otherwise. Gives the settings that
    /// the adapter was trained under.
    /// </summary>
    public (Decoder Model, RunConfig Settings, bool Adapted) Load(ParseResult parsed)
    {
        var folder = Folder(parsed);
        var spec = ModelSpec.Read(folder);
        // before all that takes long
        var adapter = !Full(parsed) && AdapterFolder(parsed) is { } named ? PeftAdapter.Read(named, spec) : null;
        var trained = Trained(parsed) is { } config ? BaseForm.Of(config.Settings) : adapter?.Form;
        var quantize = parsed.GetValue(Quantize);
        var code = quantize is null or "none" ? (QuantType?)null : Choice<QuantType>("--quantize", quantize, "none");
        var dtype = Choice<DType>("--dtype", parsed.GetValue(Dtype) ?? "auto");
        var form = BaseForm.Asked(trained, code, unquantized: quantize == "none", dtype);
        var backend = Trainer.Native.Backend.Load(parsed.GetValue(Backend), ProcessEnvironment.BackendEnvironment());
        foreach (var note in adapter?.Notes ?? [])
            view.Stage(StageNames.Adapter, note);
        if (form.Quantized && code is null)
            view.Stage(StageNames.Base, $"{form}, as the adapter was trained; --quantize none keeps it unquantized");
        var settings = new RunConfig
        {
            Adapter = adapter?.Config ?? new(),
            Model = new() { Source = Source(parsed) },
        };
        var model = ModelLoader.Load(
            folder,
            spec,
            form.Into(settings),
            ModelLoader.ComputeType(form.Dtype, backend),
            backend.Device,
            (done, total) => view.Progress("loading", done, total)
        );
        if (adapter is not null)
            AdapterFiles.Load(adapter.Folder, model, dropout: 0);
        return (model, (trained ?? form).Into(settings), adapter is not null);
    }

    /// <summary>Rows that the training of a config evaluated at once, so that an evaluation by it adds up in the same
    /// order; null when that is not known.
    /// </summary>
    public int? MicroBatch(ParseResult parsed)
    {
        if (Trained(parsed) is not { } config)
            return null;
        var checkpoints = Path.Combine(ProjectPaths.Output(config.File), "checkpoints");
        return new CheckpointFolder(checkpoints, config.Settings.Checkpoint.Keep).Said()?.MicroBatch;
    }

    private static T Choice<T>(string option, string value, params string[] also)
        where T : struct, Enum =>
        EnumNames.Values(typeof(T)).GetValueOrDefault(value.ToLowerInvariant()) is T found
            ? found
            : throw new UserFault(
                $"{option} \"{value}\" is not known.",
                found: value,
                next: $"use one of {string.Join(", ", also.Concat(Enum.GetNames<T>())).ToLowerInvariant()}"
            );
}
