using System.CommandLine;
using Memopt.Tool.Views;
using Memopt.Trainer;
using Memopt.Trainer.Adapters;
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
    public Option<string?> Quantize { get; } = new("--quantize") { Description = "Keep the base in 4 bits: nf4 or fp4." };
    public Option<string> Dtype { get; } = new("--dtype") { Description = "Compute type: auto, float32 or bfloat16.", DefaultValueFactory = _ => "auto" };
    public Option<string?> Backend { get; } = Shell.BackendOption();

    public void AddTo(Command command)
    {
        foreach (var option in new Option[] { Config, Model, Revision, Offline, Adapter, Quantize, Dtype, Backend })
            command.Options.Add(option);
    }

    /// <summary>The model's folder; brings it here first when it is elsewhere.</summary>
    public string Folder(ParseResult parsed, CancellationToken stop = default) => folder ??= Full(parsed) ? AdapterFolder(parsed)! : Trained(parsed) is { } config
        ? PullCommand.Bring(ModelSource.Parse(config.Config.Model.Source, config.Folder), config.Config.Model.Revision, parsed.GetValue(Offline), stop).Folder
        : PullCommand.Bring(ModelSource.Parse(parsed.GetValue(Model)!, Directory.GetCurrentDirectory()), parsed.GetValue(Revision), parsed.GetValue(Offline), stop).Folder;

    /// <summary>The model as it is named.</summary>
    public string Source(ParseResult parsed) => Trained(parsed)?.Config.Model.Source ?? parsed.GetValue(Model)!;

    /// <summary>The adapter's folder, or null when none is named; brings a registered one here first. Of a full fine-tune it holds the model.</summary>
    public string? AdapterFolder(ParseResult parsed) => adapterFolder ??= Trained(parsed) is { } config ? Path.Combine(Storage.Output(config.File), "adapter")
        : parsed.GetValue(Adapter) is { } named ? Workplace.Adapter(named, parsed.GetValue(Offline)) : null;

    private bool Full(ParseResult parsed) => Trained(parsed)?.Config.Adapter.Kind == AdapterKind.None;

    /// <summary>The config that was trained, or null when none is named.</summary>
    public LoadedConfig? Trained(ParseResult parsed) => trained ??= parsed.GetValue(Config) is { } file ? RunConfigFile.Read(file, [], checkFiles: false) : null;

    /// <summary>Loads the model and its adapter.</summary>
    public (Decoder Model, AdapterFiles.AdapterInfo? Adapter) Load(ParseResult parsed)
    {
        var folder = Folder(parsed);
        var adapterFolder = !Full(parsed) && AdapterFolder(parsed) is { } named ? AdapterFiles.Check(named) : null;    // before all that takes long
        var spec = ModelSpec.Read(folder);
        var quantize = parsed.GetValue(Quantize);
        var config = new RunConfig
        {
            Adapter = new() { Kind = quantize is null ? AdapterKind.Lora : AdapterKind.Qlora },
            Quantization = new() { Type = Choice<QuantType>("--quantize", quantize ?? "nf4") },
        };
        var backend = Trainer.Native.Backend.Load(parsed.GetValue(Backend), Surroundings.BackendEnvironment());
        var watcher = new ConsoleWatcher();
        var model = Trainer.Recipes.FineTune.LoadModel(folder, spec, config, Trainer.Recipes.FineTune.ComputeType(Choice<DType>("--dtype", parsed.GetValue(Dtype)!), backend), backend.Device,
            (done, total) => watcher.Progress("loading", done, total));
        var adapter = adapterFolder is not null ? AdapterFiles.Load(adapterFolder, model, dropout: 0) : null;
        return (model, adapter);
    }

    private static T Choice<T>(string option, string value) where T : struct, Enum => RunConfigFile.Names(typeof(T)).GetValueOrDefault(value.ToLowerInvariant()) is T found ? found
        : throw new UserFault($"{option} \"{value}\" is not known.", found: value, next: $"use one of {string.Join(", ", Enum.GetNames<T>()).ToLowerInvariant()}");
}

/// <summary><c>eval</c>: loss, perplexity and exact-match accuracy over a data file.</summary>
internal static class EvalCommand
{
    public static Command Create()
    {
        var model = new ModelOptions();
        var data = new Option<string?>("--data") { Description = "File, folder, glob or hf:org/name, as data.eval; with --config its own evaluation data when left out." };
        var length = new Option<int?>("--max-length") { Description = $"Longest row, tokens; that of the config, else {new DataConfig().MaxLength}." };
        var batch = new Option<int>("--batch") { Description = "Rows at once.", DefaultValueFactory = _ => 8 };
        var json = Shell.JsonOption();
        var command = new Command("eval", "Measure loss, perplexity and exact-match accuracy of greedy answers.\n\nExample:\n  dotnet memopt eval --model embedded:nano --adapter .memopt/memopt/adapter --data data/eval.jsonl\n  dotnet memopt eval --config memopt.json") { data, length, batch, json };
        model.AddTo(command);
        command.SetAction((parsed, stop) => Task.FromResult(Shell.Guard(parsed.GetValue(json), () =>
        {
            var (config, role) = Data(model.Trained(parsed), parsed.GetValue(data), parsed.GetValue(length));
            var folder = model.Folder(parsed, stop);
            var spec = ModelSpec.Read(folder);
            var rows = Dataset.Load(PullCommand.BringData(config, parsed.GetValue(model.Offline), stop), new ModelText(folder, Trainer.Recipes.FineTune.EndOfTurn(spec)), role, stop: stop)!;
            var (loaded, _) = model.Load(parsed);
            using (loaded)
            {
                var watcher = new ConsoleWatcher();
                var score = Evaluation.Run(loaded, rows.Rows, Math.Max(1, parsed.GetValue(batch)), new Progress(done => watcher.Progress("evaluation", done, rows.Rows.Count)), stop);
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
        var max = new Option<int>("--max-tokens") { Description = "At most so many new tokens.", DefaultValueFactory = _ => 256 };
        var temperature = new Option<double>("--temperature") { Description = "0 is greedy." };
        var topP = new Option<double>("--top-p") { Description = "Sample from the likeliest tokens of this share.", DefaultValueFactory = _ => 1 };
        var seed = new Option<int>("--seed") { Description = "Seed of the sampling.", DefaultValueFactory = _ => 42 };
        var ignore = new Option<bool>("--ignore-eos") { Description = "Do not stop at the end of the answer." };
        var json = Shell.JsonOption();
        var command = new Command("infer", "Answer a prompt, greedily or sampled.\n\nExample:\n  dotnet memopt infer --adapter .memopt/memopt/adapter 'What part of speech is \"chub\"?'\n  noun") { prompt, raw, ids, max, temperature, topP, seed, ignore, json };
        model.AddTo(command);
        command.SetAction((parsed, stop) => Task.FromResult(Shell.Guard(parsed.GetValue(json), () =>
        {
            var folder = model.Folder(parsed, stop);
            var spec = ModelSpec.Read(folder);
            var tokenizer = File.Exists(Path.Combine(folder, "tokenizer.json")) || parsed.GetValue(ids) is null ? Tokenizer.Load(folder) : null;
            var input = Prompt(parsed.GetValue(ids), spec, tokenizer, () => parsed.GetValue(prompt) ?? Console.In.ReadToEnd(), parsed.GetValue(raw) ? null : ChatTemplate.Load(folder));
            var (loaded, _) = model.Load(parsed);
            using (loaded)
            {
                var stops = parsed.GetValue(ignore) ? [] : Trainer.Recipes.FineTune.EndOfTurn(spec);
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
            var (loaded, adapter) = model.Load(parsed);
            using (loaded)
            {
                var staged = target + ".staged";
                Directory.CreateDirectory(staged);
                if (parsed.GetValue(merge) || adapter is null)
                    MergedModel.Save(staged, source, loaded);
                else
                    AdapterFiles.Save(staged, loaded, adapter.Alpha, adapter.Rslora, adapter.Dropout, adapter.Biases, model.Source(parsed));
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
