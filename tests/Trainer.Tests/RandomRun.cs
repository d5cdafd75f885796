using System.Text.Json;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests;

/// <summary>The shape of a Llama or Mistral model.</summary>
internal sealed record Shape(int Hidden, int Intermediate, int Layers, int Heads, int KvHeads, int Vocabulary)
{
    private static readonly Dictionary<Shape, string> made = [];

    /// <summary>Whether the head is the embeddings.</summary>
    public bool Tied { get; init; }

    private long KvWidth => (long)Hidden / Heads * KvHeads;

    /// <summary>Tokens a query looks back, of a Mistral; null is a Llama.</summary>
    public int? Window { get; init; }

    /// <summary>(In, Out) of the linears of a layer.</summary>
    private (long In, long Out)[] Linears =>
        [
            (Hidden, Hidden),
            (Hidden, KvWidth),
            (Hidden, KvWidth),
            (Hidden, Hidden),
            (Hidden, Intermediate),
            (Hidden, Intermediate),
            (Intermediate, Hidden),
        ];

    /// <summary>Weights that are in no linear of a layer: embedding, head, norms.</summary>
    public long Others => 2L * Vocabulary * Hidden + (2L * Layers + 1) * Hidden;

    /// <summary>Weights of the model.</summary>
    public long Parameters => Others + Layers * Linears.Sum(linear => linear.In * linear.Out);

    /// <summary>Weights of LoRA pairs on every linear of the layers (Hu et al. 2021, arXiv 2106.09685).</summary>
    public long Adapters(int rank) => Layers * Linears.Sum(linear => rank * (linear.In + linear.Out));

    /// <summary>Bytes of the linears in NF4 with double quantization (Dettmers et al. 2023, arXiv 2305.14314): 4 bits a
    /// weight, 8 a block of 64, 32 for 256 blocks.</summary>
    public long Nf4 =>
        Layers
        * Linears.Sum(linear => linear.In * linear.Out is var n ? n / 2 + n / 64 + (n / 64 + 255) / 256 * 4 + 4 : 0);

    /// <summary>A folder with a model of this shape and random weights in bf16.</summary>
    public string Folder()
    {
        lock (made)
        {
            if (made.TryGetValue(this, out var folder))
                return folder;
            folder = Directory.CreateTempSubdirectory("memopt model").FullName;
            File.WriteAllText(
                Path.Combine(folder, "config.json"),
                $$"""
                { "model_type": "{{(Window is null ? "llama" : "mistral")}}",
                  "sliding_window": {{Window?.ToString() ?? "null"}}, "hidden_size": {{Hidden}},
                  "intermediate_size": {{Intermediate}}, "num_hidden_layers": {{Layers}},
                  "num_attention_heads": {{Heads}}, "num_key_value_heads": {{KvHeads}},
                  "vocab_size": {{Vocabulary}}, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
                  "torch_dtype": "bfloat16",
                  "tie_word_embeddings": {{(Tied ? "true" : "false")}} }
                """
            );
            using var scope = NewDisposeScope();
            manual_seed(3);
            SafeTensors.Write(
                Path.Combine(folder, "model.safetensors"),
                [
                    .. ModelSpec
                        .Read(folder)
                        .Tensors.Select(tensor =>
                            (
                                tensor.Name,
                                tensor.Shape.Length == 1
                                    ? ones(tensor.Shape, bfloat16)
                                    : randn(tensor.Shape, float32).mul_(0.02).to(bfloat16)
                            )
                        ),
                ]
            );
            return made[this] = folder;
        }
    }
}

/// <summary>A fine-tune of a model of random weights over random rows, in this process.</summary>
/// <param name="shape">Of the model.</param>
/// <param name="adapter">The adapter settings, as JSON.</param>
/// <param name="train">The train settings.</param>
/// <param name="more">Further sections of the config, as JSON members.</param>
internal sealed class RandomRun(Shape shape, string adapter, string train, string more = "") : ITrainingObserver
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    public int Rows { get; init; } = 32;

    public int Length { get; init; } = 1024;

    /// <summary>Called after each step.</summary>
    public Action<StepRow> OnStep { get; init; } = _ => { };

    public List<double> Losses { get; } = [];

    public IReadOnlyList<LedgerRow> Planned { get; private set; } = [];

    public IReadOnlyList<LedgerRow> Measured { get; private set; } = [];

    public IReadOnlyList<RunEvent> Events { get; private set; } = [];

    /// <summary>Writes a file of rows, each of so many tokens.</summary>
    public static void WriteRows(string path, int rows, Func<int> length, Func<int> id) =>
        File.WriteAllLines(
            path,
            Enumerable
                .Range(0, rows)
                .Select(_ =>
                    JsonSerializer.Serialize(new { input_ids = Enumerable.Range(0, length()).Select(_ => id()) })
                )
        );

    public Result Run(Backend backend)
    {
        var random = new Random(1);
        foreach (var (file, rows) in new[] { ("train.jsonl", Rows), ("eval.jsonl", 8) })
            WriteRows(Path.Combine(folder, file), rows, () => Length, () => random.Next(shape.Vocabulary));
        var config = Path.Combine(folder, "memopt.json");
        File.WriteAllText(
            config,
            $$"""
            { "model": { "source": {{JsonSerializer.Serialize(
                shape.Folder()
            )}} }, "data": { "train": "train.jsonl", "eval": "eval.jsonl", "maxLength": {{Length}} },
              "adapter": { {{adapter}} }, "train": { {{train}} }{{(more.Length > 0 ? ", " + more : "")}} }
            """
        );
        using var store = new LiteRunStore(Path.Combine(folder, "store"));
        var result = Recipes.FineTuneRecipe.Run(
            new FineTuneJob
            {
                Config = RunConfigFile.Read(config, []),
                Model = shape.Folder(),
                Output = Path.Combine(folder, "out"),
                Backend = backend,
                Store = store,
                Artifacts = new LocalArtifacts(Path.Combine(folder, "artifacts")),
                Observer = this,
                RunId = "a",
            },
            CancellationToken.None
        );
        Events = store.Events("a");
        return result;
    }

    public void Step(StepRow row, int total)
    {
        Losses.Add(row.Loss);
        OnStep(row);
    }

    public void Stage(string name, string text) { }

    public void Progress(string name, long done, long total) { }

    public void Ledger(IReadOnlyList<LedgerRow> rows, bool measured)
    {
        if (measured)
            Measured = rows;
        else
            Planned = rows;
    }
}
