using System.Text.Json;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Native;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>A fine-tune of a small model that every rank of a world runs; and the same in a world of one, which rank 0
/// runs for comparison.</summary>
/// <param name="world">The ranks.</param>
/// <param name="folder">A new folder, the same on all ranks.</param>
/// <param name="sections">The sections train, adapter and more of the config, as JSON members.</param>
internal sealed class RankTraining(World world, string folder, string sections) : ITrainingObserver, IDisposable
{
    // One rank trains the same whatever the ranks are compared in.
    private static readonly Dictionary<string, Found> singles = [];

    private World ranks = World.Single;
    private int step;

    /// <summary>Rows of the training file.</summary>
    public int Rows { get; set; } = 10;

    /// <summary>Fewest and most tokens of a row.</summary>
    public (int Fewest, int Most) Tokens { get; init; } = (5, 60);

    /// <summary>Draws a token.</summary>
    public Func<Random, int> Token { get; init; } = random => random.Next(1000);

    /// <summary>The axes of the ranks beside data parallel, as JSON members of the section distributed.</summary>
    public string Axes { get; set; } = "";

    /// <summary>Shape of the model.</summary>
    public Shape Shape { get; init; } = new(64, 128, 4, 4, 2, 1024);

    /// <summary>A rank and the step, from 1, in which memory runs out there once.</summary>
    public (int Rank, int Step)? Exhausted { get; set; }

    /// <summary>Readings of the meter in that step that find enough memory still.</summary>
    public int Readings { get; set; }

    /// <summary>The number of steps after which a stop is asked for on the last rank.</summary>
    public int? StopAfter { get; init; }

    private readonly CancellationTokenSource stop = new();

    public sealed record Found(Result Result, List<double> Losses, byte[]? Weights, IReadOnlyList<RunEvent> Events)
    {
        /// <summary>The rows of this rank's memory, planned and measured.</summary>
        public IReadOnlyList<LedgerRow> Ledger { get; init; } = [];
    }

    /// <summary>Trains in the world, or in a part of it, or goes on with what either has begun.</summary>
    public Found Run(World ranks, string output, string strategy = "auto")
    {
        this.ranks = ranks;
        if (ranks.IsMain)
            Write(strategy);
        ranks.Group.Barrier(Timeout.InfiniteTimeSpan);
        var place = Path.Combine(folder, output);
        using var store = new LiteRunStore(Path.Combine(place, "store"));
        var config = RunConfigFile.Read(Path.Combine(folder, "memopt.json"), []);
        var losses = new List<double>();
        (this.losses, step) = (losses, 1);
        var result = FineTuneRecipe.Run(
            new FineTuneJob
            {
                Config = config,
                Model = config.Settings.Model.Source,
                Output = Path.Combine(place, "out"),
                Backend = Backend.Load("cpu", TestBackend.Environment),
                World = ranks,
                Store = store,
                Artifacts = new LocalArtifacts(Path.Combine(place, "artifacts")),
                Observer = this,
                RunId = "a",
                MemoryLimit = Allowed,
            },
            stop.Token
        );
        ranks.Group.Barrier(Timeout.InfiniteTimeSpan);
        var adapter = Path.Combine(place, "out", "adapter");
        var file = Directory.Exists(adapter) ? Directory.EnumerateFiles(adapter, "*.safetensors").Single() : null;
        return new(result, losses, file is null ? null : File.ReadAllBytes(file), store.Events("a"))
        {
            Ledger = ledger,
        };
    }

    /// <summary>What a world of one trains, on the main rank; the others wait.</summary>
    public Found? RunSingle(string output = "single")
    {
        var key = $"{sections} {Rows} {Tokens} {Shape}";
        var found = output == "single" ? singles.GetValueOrDefault(key) : null;
        if (world.IsMain && found is null)
        {
            found = Run(World.Single, output);
            if (output == "single")
                singles[key] = found;
        }
        world.Group.Barrier(Timeout.InfiniteTimeSpan);
        return found;
    }

    private List<double> losses = [];

    public void Dispose() => stop.Dispose();

    public void Stage(string name, string text) { }

    public void Progress(string name, long done, long total) { }

    private IReadOnlyList<LedgerRow> ledger = [];

    public void Ledger(IReadOnlyList<LedgerRow> rows, bool measured)
    {
        if (measured)
            ledger = rows;
    }

    public void Step(StepRow row, int total)
    {
        losses.Add(row.Loss);
        step = row.Step + 1;
        if (row.Step == StopAfter && ranks.Rank == ranks.Size - 1)
            stop.Cancel();
    }

    private long? Allowed()
    {
        if (Exhausted is not { } where || where.Rank != world.Rank || where.Step != step)
            return null;
        if (Readings-- > 0)
            return null;
        Exhausted = null;
        return -1L << 40;
    }

    private void Write(string strategy)
    {
        Directory.CreateDirectory(folder);
        var random = new Random(5);
        foreach (var (file, rows) in new[] { ("train.jsonl", Rows), ("eval.jsonl", 7) })
            RandomRun.WriteRows(
                Path.Combine(folder, file),
                rows,
                () => random.Next(Tokens.Fewest, Tokens.Most + 1),
                () => Token(random)
            );
        File.WriteAllText(
            Path.Combine(folder, "memopt.json"),
            $$"""
            { "model": { "source": {{JsonSerializer.Serialize(
                Shape.Folder()
            )}}, "dtype": "float32" },
              "distributed": { "strategy": "{{strategy}}"{{(ranks.Size > 1 ? Axes : "")}} }, {{sections}} }
            """
        );
    }
}
