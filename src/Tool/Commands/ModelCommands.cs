using System.CommandLine;
using Memopt.Tool.Views;
using Memopt.Trainer;
using Memopt.Trainer.Checkpoints;
using Memopt.Trainer.Data;
using Memopt.Trainer.Hub;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Weights;

namespace Memopt.Tool.Commands;

/// <summary>The options by which eval, infer and export name a model and what is laid over it.</summary>
internal sealed class ModelOptions
{
    private string? folder, adapterFolder;
    private LoadedConfig? trained;

    public Option<string?> Config { get; } = new("--config") { Description = "A config that was trained: its model and its adapter, in place of --model and --adapter." };
    public Option<string> Model { get; } = new("--model") { Description = "Model folder, embedded:nano, or a model to download: org/name, modelscope:org/name, https://…, az://…", DefaultValueFactory = _ => ModelHub.Nano };
    public Option<string?> Revision { get; } = new("--revision") { Description = "Branch, tag or commit of a downloaded model." };
    public Option<bool> Offline { get; } = Shell.OfflineOption();
    public Option<string?> Adapter { get; } = new("--adapter") { Description = "Adapter folder in PEFT's layout, or a registered adapter: NAME, NAME@best, NAME@3." };
    public Option<string?> Quantize { get; } = new("--quantize")
    {
        Description = "Keep the base in 4 bits, nf4 or fp4, or none; as the adapter was trained when left out.",
        CompletionSources = { "nf4", "fp4", "none" },
    };
    public Option<string?> Dtype { get; } = new("--dtype")
    {
        Description = "Compute type: auto, float32 or bfloat16; as the adapter was trained when left out.",
        CompletionSources = { "auto", "float32", "bfloat16" },
    };
    public Option<string?> Backend { get; } = Shell.BackendOption();

    public void AddTo(Command command)
    {
        foreach (var option in new Option[] { Config, Model, Revision, Offline, Adapter, Quantize, Dtype, Backend })
            command.Options.Add(option);
    }

    /// <summary>The model's folder; brings it here first when it is elsewhere.</summary>
    public string Folder(ParseResult parsed, CancellationToken stop = default) => folder ??= Full(parsed) ? AdapterFolder(parsed)! : Trained(parsed) is { } config
        ? PullCommand.Fetch(ModelSource.Parse(config.Config.Model.Source, config.Folder), config.Config.Model.Revision, parsed.GetValue(Offline), stop).Folder
        : PullCommand.Fetch(ModelSource.Parse(parsed.GetValue(Model)!, Directory.GetCurrentDirectory()), parsed.GetValue(Revision), parsed.GetValue(Offline), stop).Folder;

    /// <summary>The model as it is named.</summary>
    public string Source(ParseResult parsed) => Trained(parsed)?.Config.Model.Source ?? parsed.GetValue(Model)!;

    /// <summary>The adapter's folder, or null when none is named; brings a registered one here first. Of a full fine-tune it holds the model.</summary>
    public string? AdapterFolder(ParseResult parsed) => adapterFolder ??= Trained(parsed) is { } config ? CurrentProject.Result(config.File)
        : parsed.GetValue(Adapter) is { } named ? CurrentProject.Adapter(named, parsed.GetValue(Offline)) : null;

    private bool Full(ParseResult parsed) => Trained(parsed)?.Config.Adapter.Kind == AdapterKind.None;

    /// <summary>The config that was trained, or null when none is named.</summary>
    public LoadedConfig? Trained(ParseResult parsed) => trained ??= parsed.GetValue(Config) is { } file ? RunConfigFile.Read(file, [], checkFiles: false) : null;

    /// <summary>
    /// Loads the model and its adapter. The base is kept as it was when the adapter was trained, which a config says, or else the
    /// adapter itself, unless --quantize and --dtype say otherwise. Gives the settings that the adapter was trained under.
    /// </summary>
    public (Decoder Model, RunConfig Settings, bool Adapted) Load(ParseResult parsed)
    {
        var folder = Folder(parsed);
        var spec = ModelSpec.Read(folder);
        var adapter = !Full(parsed) && AdapterFolder(parsed) is { } named ? PeftAdapter.Read(named, spec) : null;    // before all that takes long
        var trained = Trained(parsed) is { } config ? BaseForm.Of(config.Config) : adapter?.Form;
        var quantize = parsed.GetValue(Quantize);
        var code = quantize is null or "none" ? (QuantType?)null : Choice<QuantType>("--quantize", quantize, "none");
        var dtype = Choice<DType>("--dtype", parsed.GetValue(Dtype) ?? "auto");
        var form = BaseForm.Asked(trained, code, unquantized: quantize == "none", dtype);
        var backend = Trainer.Native.Backend.Load(parsed.GetValue(Backend), ProcessEnvironment.BackendEnvironment());
        var watcher = new ConsoleObserver();
        foreach (var note in adapter?.Notes ?? [])
            watcher.Stage("adapter", note);
        if (form.Quantized && code is null)
            watcher.Stage("base", $"{form}, as the adapter was trained; --quantize none keeps it unquantized");
        var settings = new RunConfig { Adapter = adapter?.Config ?? new(), Model = new() { Source = Source(parsed) } };
        var model = Trainer.Recipes.FineTuneRecipe.LoadModel(folder, spec, form.Into(settings), Trainer.Recipes.FineTuneRecipe.ComputeType(form.Dtype, backend), backend.Device,
            (done, total) => watcher.Progress("loading", done, total));
        if (adapter is not null)
            AdapterFiles.Load(adapter.Folder, model, dropout: 0);
        return (model, (trained ?? form).Into(settings), adapter is not null);
    }

    /// <summary>
    /// Rows that the training of a config evaluated at once, so that an evaluation by it adds up in the same order; null when that
    /// is not known.
    /// </summary>
    public int? MicroBatch(ParseResult parsed)
    {
        if (Trained(parsed) is not { } config)
            return null;
        var checkpoints = Path.Combine(ProjectPaths.Output(config.File), "checkpoints");
        return new CheckpointFolder(checkpoints, config.Config.Checkpoint.Keep).Said()?.MicroBatch;
    }

    private static T Choice<T>(string option, string value, params string[] also) where T : struct, Enum =>
        RunConfigFile.Names(typeof(T)).GetValueOrDefault(value.ToLowerInvariant()) is T found ? found
        : throw new UserFault($"{option} \"{value}\" is not known.", found: value,
            next: $"use one of {string.Join(", ", also.Concat(Enum.GetNames<T>())).ToLowerInvariant()}");
}

/// <summary><c>eval</c>: loss, perplexity and exact-match accuracy over a data file.</summary>
internal static class EvalCommand
{
    public static Command Create()
    {
        var model = new ModelOptions();
        var data = new Option<string?>("--data") { Description = "File, folder, glob or hf:org/name, as data.eval; with --config its own evaluation data when left out." };
        var length = Shell.NumberOption<int>("--max-length", $"Longest row, tokens; that of the config, else {new DataConfig().MaxLength}.",
            "1 or more", number => number > 0);
        var batch = Shell.NumberOption<int>("--batch", "Rows at once; as many as the config's training, else 8.", "1 or more", number => number > 0);
        var json = Shell.JsonOption();
        var command = new Command("eval", "Measure loss, perplexity and exact-match accuracy of greedy answers.\n\nExample:\n  dotnet memopt eval --model embedded:nano --adapter .memopt/memopt/adapter --data data/eval.jsonl\n  dotnet memopt eval --config memopt.json") { data, length, batch, json };
        model.AddTo(command);
        command.SetAction((parsed, stop) => Task.FromResult(Shell.Guard(parsed.GetValue(json), () =>
        {
            var (config, role) = Data(model.Trained(parsed), parsed.GetValue(data), parsed.GetValue(length));
            var folder = model.Folder(parsed, stop);
            var spec = ModelSpec.Read(folder);
            var rows = Dataset.Load(PullCommand.FetchData(config, parsed.GetValue(model.Offline), stop), new ChatEncoder(folder, Trainer.Recipes.FineTuneRecipe.EndOfTurn(spec), stop: stop), role, stop: stop)!;
            var (loaded, _, _) = model.Load(parsed);
            using (loaded)
            {
                var watcher = new ConsoleObserver();
                var atOnce = parsed.GetValue(batch) ?? model.MicroBatch(parsed) ?? 8;
                var score = Evaluation.Run(loaded, rows.Rows, atOnce, new Progress(done => watcher.Progress("evaluation", done, rows.Rows.Count)), stop);
                if (parsed.GetValue(json))
                    Shell.Print(score);
                else
                    Console.Out.WriteLine($"loss {score.Loss:F4}  perplexity {score.Perplexity:F3}  accuracy {score.Accuracy:P1} of {score.Answers:N0} answers  {score.Tokens:N0} tokens");
            }
            return 0;
        })));
        return command;
    }

    /// <summary>A config that names the rows, and as what. What a trained config says of rows holds for others too.</summary>
    private static (LoadedConfig Config, DataRole Role) Data(LoadedConfig? trained, string? source, int? length)
    {
        var data = trained?.Config.Data ?? new();
        if (length is { } longest)
            data = data with { MaxLength = longest };
        if (source is not null)
            return (RunConfigFile.Default([]) with { Config = new() { Data = data with { Train = DataSources.Of(source), Eval = null, EvalShare = 0 } } }, DataRole.Train);
        if (trained is null || (data.Eval is null && data.EvalShare == 0))
            throw new UserFault(trained is null ? "eval needs --data or --config." : $"{trained.File} names no evaluation data.", next: "dotnet memopt eval --data eval.jsonl   (a file, folder, glob or hf:org/name)");
        return (trained with { Config = trained.Config with { Data = data } }, DataRole.Eval);
    }

    private sealed class Progress(Action<int> report) : IProgress<int>
    {
        public void Report(int value) => report(value);
    }
}

/// <summary><c>infer</c>: answers a prompt.</summary>
internal static class InferCommand
{
    public static Command Create()
    {
        var model = new ModelOptions();
        var prompt = new Argument<string?>("prompt") { Description = "A user's turn; standard input when left out.", Arity = ArgumentArity.ZeroOrOne };
        var raw = new Option<bool>("--raw") { Description = "Continue the text as it is, without the chat template." };
        var ids = new Option<string?>("--ids") { Description = "Token ids to continue, separated by commas, in place of a prompt." };
        var max = Shell.NumberOption("--max-tokens", "At most so many new tokens.", 256, "a whole number, 1 or more", number => number > 0);
        var temperature = Shell.NumberOption("--temperature", "0 is greedy.", 0.0, "a number from 0 to 100", number => number is >= 0 and <= 100);
        var topP = Shell.NumberOption("--top-p", "Sample from the likeliest tokens of this share.", 1.0, "a number above 0, at most 1", number => number is > 0 and <= 1);
        var seed = new Option<int>("--seed") { Description = "Seed of the sampling.", DefaultValueFactory = _ => 42 };
        var ignore = new Option<bool>("--ignore-eos") { Description = "Do not stop at the end of the answer." };
        var json = Shell.JsonOption();
        var command = new Command("infer", "Answer a prompt, greedily or sampled.\n\nExample:\n  dotnet memopt infer --adapter .memopt/memopt/adapter 'What part of speech is \"chub\"?'\n  noun") { prompt, raw, ids, max, temperature, topP, seed, ignore, json };
        model.AddTo(command);
        command.SetAction((parsed, stop) => Task.FromResult(Shell.Guard(parsed.GetValue(json), () =>
        {
            var folder = model.Folder(parsed, stop);
            var spec = ModelSpec.Read(folder);
            var tokenizer = File.Exists(Path.Combine(folder, "tokenizer.json")) || parsed.GetValue(ids) is null ? Tokenizer.Load(folder, stop) : null;
            var input = Prompt(parsed.GetValue(ids), spec, tokenizer, () => parsed.GetValue(prompt) ?? Console.In.ReadToEnd(), parsed.GetValue(raw) ? null : ChatTemplate.Load(folder));
            var (loaded, _, _) = model.Load(parsed);
            using (loaded)
            {
                var stops = parsed.GetValue(ignore) ? [] : Trainer.Recipes.FineTuneRecipe.EndOfTurn(spec);
                var output = new List<int>();
                var shown = 0;
                foreach (var id in Generation.Run(loaded, input, stops, new Sampling(parsed.GetValue(max), parsed.GetValue(temperature), parsed.GetValue(topP), parsed.GetValue(seed))))
                {
                    stop.ThrowIfCancellationRequested();
                    output.Add(id);
                    if (parsed.GetValue(json) || tokenizer is null)
                        continue;
                    var text = tokenizer.Decode(output);
                    if (text.EndsWith('\uFFFD'))
                        continue;                                             // half a character: wait for the rest
                    Console.Out.Write(text[shown..]);
                    shown = text.Length;
                }
                if (parsed.GetValue(json))
                    Shell.Print(new { prompt = input, ids = output, text = tokenizer?.Decode(output) });
                else
                    Console.Out.WriteLine(tokenizer is null ? string.Join(",", output) : "");
            }
            return 0;
        })));
        return command;
    }

    private static IReadOnlyList<int> Prompt(string? ids, ModelSpec spec, Tokenizer? tokenizer, Func<string> text, ChatTemplate? template)
    {
        if (ids is not null)
        {
            var parts = ids.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
            var parsed = parts.Select(part => int.TryParse(part, out var id) && id >= 0 && id < spec.VocabSize ? id
                : throw new UserFault($"--ids: \"{part}\" is not a token of this model.", found: part, next: $"use numbers from 0 to {spec.VocabSize - 1}")).ToList();
            return parsed.Count > 0 ? parsed : throw new UserFault("--ids is empty.");
        }
        var prompt = text();
        if (prompt.Length == 0)
            throw new UserFault("The prompt is empty.", next: "dotnet memopt infer \"a question\"");
        var tokens = template is null ? tokenizer!.Encode(prompt, addSpecial: true)
            : tokenizer!.Encode(template.Render([new() { ["role"] = "user", ["content"] = prompt }], addGenerationPrompt: true));
        return tokens.Length > 0 ? tokens : throw new UserFault("The prompt has no token.", found: prompt, next: "dotnet memopt infer \"a question\"");
    }
}

/// <summary><c>export</c>: an adapter as PEFT's folder, or merged into the base.</summary>
internal static class ExportCommand
{
    public static Command Create()
    {
        var model = new ModelOptions();
        var output = new Option<string>("--out") { Description = "Folder to write.", Required = true };
        var merge = new Option<bool>("--merge") { Description = "Add the adapter into the base model's weights." };
        var json = Shell.JsonOption();
        var command = new Command("export", "Write an adapter, or a model with the adapter merged in.\n\nExample:\n  dotnet memopt export --merge --model embedded:nano --adapter .memopt/memopt/adapter --out merged") { output, merge, json };
        model.AddTo(command);
        command.SetAction(parsed => Shell.Guard(parsed.GetValue(json), () =>
        {
            var (source, target) = (model.Folder(parsed), Path.GetFullPath(parsed.GetValue(output)!));
            if (model.AdapterFolder(parsed) is null)
                throw new UserFault("export needs --adapter or --config.", next: "dotnet memopt export --help");
            if (Directory.Exists(target) && Directory.EnumerateFileSystemEntries(target).Any())
                throw new UserFault($"{target} is not empty.", next: "name a new folder with --out");
            var (loaded, settings, adapted) = model.Load(parsed);
            using (loaded)
            {
                var staged = target + ".staged";
                Directory.CreateDirectory(staged);
                if (parsed.GetValue(merge) || !adapted)
                    MergedModel.Save(staged, source, loaded);
                else
                    AdapterFiles.Save(staged, loaded, settings);
                if (Directory.Exists(target))
                    Directory.Delete(target);
                Directory.Move(staged, target);
            }
            if (parsed.GetValue(json))
                Shell.Print(new { folder = target });
            else
                Console.Out.WriteLine(target);
            return 0;
        }));
        return command;
    }
}
