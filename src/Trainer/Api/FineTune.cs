using System.Text.Json;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;

namespace Memopt;

/// <summary>One step of a training.</summary>
/// <param name="Step">Optimizer step, from 1.</param>
/// <param name="Total">Steps to make.</param>
/// <param name="Loss">Mean over the step's trained tokens, nats.</param>
/// <param name="LearningRate">The rate the step was made with.</param>
/// <param name="GradNorm">Global L2 norm of the gradient before clipping.</param>
/// <param name="TokensPerSecond">All tokens computed, padding left out, per second.</param>
/// <param name="MemoryBytes">Peak bytes of live tensors (device memory on a GPU) up to the step.</param>
/// <param name="Seconds">Wall time of the step.</param>
public sealed record StepInfo(
    int Step,
    int Total,
    double Loss,
    double LearningRate,
    double GradNorm,
    double TokensPerSecond,
    long MemoryBytes,
    double Seconds
);

/// <summary>A fine-tune from code: the settings of a config, rows and metrics of the program's own. It trains what
/// <c>dotnet memopt run</c> would from the same config and rows, to the byte, goes on where it was stopped or killed,
/// does nothing when the same has been trained already, and is recorded in the same store.
/// </summary>
/// <example><code>
/// var result = await FineTune.Create("memopt.json")
///     .With("train.epochs", 2)
///     .WithData(words.Select(word => Chat.Of($"What part of speech is \"{word.Text}\"?", word.Class)))
///     .OnStep(step => Console.WriteLine($"{step.Step} of {step.Total}: loss {step.Loss:F3}"))
///     .RunAsync(stop);
/// </code></example>
public sealed class FineTune
{
    private static readonly string[] measured = ["loss", "perplexity", "accuracy", "tokens"];
    private static readonly SemaphoreSlim training = new(1);

    private readonly string file;
    private readonly Func<string[], ProjectConfig> read;
    private readonly List<string> settings = [];
    private readonly Dictionary<string, Func<Answer, double>> metrics = [];
    private readonly Watcher watcher = new();
    private IEnumerable<Chat>? rows,
        evaluation;
    private string? backend;
    private bool offline,
        fromStart;

    private FineTune(string file, Func<string[], ProjectConfig> read) => (this.file, this.read) = (file, read);

    /// <summary>A fine-tune by a config file. Checkpoints, rows and result go to <c>.memopt</c> beside it.</summary>
    /// <param name="configFile">A <c>memopt.json</c>; relative to the current directory.</param>
    public static FineTune Create(string configFile)
    {
        ArgumentException.ThrowIfNullOrEmpty(configFile);
        var file = Path.GetFullPath(configFile);
        return new(file, settings => RunConfigFile.Read(file, settings));
    }

    /// <summary>A fine-tune by settings, as if they were written in <c>NAME.json</c> in the current
    /// directory.</summary>
    /// <param name="config">The settings; those left out are at their defaults.</param>
    /// <param name="name">Of the folder in <c>.memopt</c> that checkpoints, rows and result go to.</param>
    public static FineTune Create(RunConfig config, string name = "memopt")
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentException.ThrowIfNullOrEmpty(name);
        var file = Path.GetFullPath(name + ".json");
        return new(file, settings => RunConfigFile.Read(file, config, settings));
    }

    /// <summary>Changes a setting, as <c>--set</c> does.</summary>
    /// <param name="setting">Its name: <c>train.steps</c>.</param>
    /// <param name="value">A string, number, flag, enum or list; null where the setting may be left out.</param>
    public FineTune With(string setting, object? value)
    {
        ArgumentException.ThrowIfNullOrEmpty(setting);
        settings.Add($"{setting}={JsonSerializer.Serialize(value is Enum ? EnumNames.Spelling(value) : value)}");
        return this;
    }

    /// <summary>Trains on these rows instead of <c>data.train</c>. They are read once, when the training begins, and
    /// kept as JSON Lines under their hash in the run's folder.</summary>
    public FineTune WithData(IEnumerable<Chat> rows)
    {
        ArgumentNullException.ThrowIfNull(rows);
        this.rows = rows;
        return this;
    }

    /// <summary>Evaluates on these rows instead of <c>data.eval</c>; kept likewise.</summary>
    public FineTune WithEvaluation(IEnumerable<Chat> rows)
    {
        ArgumentNullException.ThrowIfNull(rows);
        evaluation = rows;
        return this;
    }

    /// <summary>Judges the model's own answers when it is trained: each answer in the evaluation rows is generated
    /// greedily, at most 256 tokens of it, from what is before it, and the mean of what the judge gives is recorded in
    /// the run as the metric <c>eval_NAME</c>. A run that was trained already keeps the metrics it has.
    /// </summary>
    /// <param name="name">Of the metric, without <c>eval_</c>.</param>
    /// <param name="judge">Given the prompt as the model reads it (template and all), the row's answer and the model's;
    /// gives a number. Called on the training's thread.</param>
    public FineTune WithMetric(string name, Func<string, string, string, double> judge)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(judge);
        if (measured.Contains(name))
            throw new ArgumentException($"\"{name}\" is measured anyway; name the metric otherwise.", nameof(name));
        metrics[name] = answer => judge(answer.Prompt, answer.Expected, answer.Given);
        return this;
    }

    /// <summary>Calls back after each step, on the training's thread, which waits. An exception ends the run as failed
    /// and comes out of <see cref="RunAsync"/>.</summary>
    public FineTune OnStep(Action<StepInfo> step)
    {
        watcher.Steps += step;
        return this;
    }

    /// <summary>Tells what passes, as stage (model, data, memory, training, …) and text; on the training's
    /// thread.</summary>
    public FineTune OnProgress(Action<string, string> progress)
    {
        watcher.Stages += progress;
        return this;
    }

    /// <summary>Computes with cpu, cuda, or the libtorch in a folder; without this, with what is found first. The first
    /// one loaded stays for the whole process.</summary>
    public FineTune WithBackend(string backend)
    {
        this.backend = backend;
        return this;
    }

    /// <summary>Takes models and data sets from the cache and asks no server.</summary>
    public FineTune Offline()
    {
        offline = true;
        return this;
    }

    /// <summary>Ignores existing checkpoints and trains again, also when the result is up to date.</summary>
    public FineTune FromStart()
    {
        fromStart = true;
        return this;
    }

    /// <summary>Trains, on a thread of its own; a second training in the process waits for the first.</summary>
    /// <param name="cancellation">Ends the training after the step, with a checkpoint: the result then says Stopped,
    /// and the next call goes on. Before the first step there is nothing to keep, and it is an
    /// <see cref="OperationCanceledException"/>.</param>
    /// <exception cref="UserFault">Something has to be fixed first: a setting, a row, a model or libtorch that is not
    /// there. It says what was found and what to do.</exception>
    public Task<FineTuneResult> RunAsync(CancellationToken cancellation = default)
    {
        var result = new TaskCompletionSource<FineTuneResult>(TaskCreationOptions.RunContinuationsAsynchronously);
        // TorchSharp's dispose scopes belong to a thread, so all of it is one.
        new Thread(() =>
        {
            try
            {
                training.Wait(cancellation);
                try
                {
                    result.SetResult(Run(cancellation));
                }
                finally
                {
                    training.Release();
                }
            }
            catch (OperationCanceledException e) when (cancellation.IsCancellationRequested)
            {
                result.SetCanceled(e.CancellationToken);
            }
            catch (Exception e)
            {
                result.SetException(e);
            }
        })
        {
            Name = "memopt training",
            IsBackground = true,
        }.Start();
        return result.Task;
    }

    private FineTuneResult Run(CancellationToken stop)
    {
        stop.ThrowIfCancellationRequested();
        var output = ProjectPaths.Output(file);
        IEnumerable<string> Kept(string setting, string role, IEnumerable<Chat>? chats)
        {
            if (chats is null)
                return [];
            var kept = Chat.Keep(Path.Combine(output, "rows"), role, chats, stop);
            var source = Path.GetRelativePath(Path.GetDirectoryName(file)!, kept).Replace('\\', '/');
            return [$"{setting}={JsonSerializer.Serialize(source)}"];
        }
        var config = read([
            .. settings,
            .. Kept("data.train", "train", rows),
            .. Kept("data.eval", "eval", evaluation),
        ]);
        using var store = ArtifactStores.Store(config);
        var result = new RunLauncher
        {
            Config = config,
            Store = store,
            Output = output,
            Observer = watcher,
            Pulling = _ => watcher,
            Backend = backend,
            Offline = offline,
            FromStart = fromStart,
            Metrics = metrics,
        }.Run(stop);
        return new(result.RunId, result.Status, result.Steps, result.Adapter, result.Eval, result.UpToDate);
    }

    private sealed class Watcher : ITrainingObserver, IPullWatcher
    {
        public Action<string, string>? Stages { get; set; }

        public Action<StepInfo>? Steps { get; set; }

        public void Stage(string name, string text) => Stages?.Invoke(name, text);

        public void Step(StepRow row, int total) =>
            Steps?.Invoke(
                new(
                    row.Step,
                    total,
                    row.Loss,
                    row.LearningRate,
                    row.GradNorm,
                    row.TokensPerSecond,
                    row.MemoryBytes,
                    row.Seconds
                )
            );

        public void Note(string text) => Stage(StageNames.Download, text);

        public void Progress(string name, long done, long total) { }

        public void Ledger(IReadOnlyList<LedgerRow> rows, bool measured) { }

        public void Advance(string file, long done, long size, long resumed) { }
    }
}
