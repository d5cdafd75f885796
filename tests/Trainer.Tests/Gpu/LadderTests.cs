using System.Text.Json;
using Memopt.Tracking;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Gpu;

/// <summary>Something else takes the card's memory while a run goes on.</summary>
[Trait(Gpu.Trait, Gpu.Name)]
[Collection(Alone.Name)]
public sealed class LadderTests
{
    [GpuTheory, InlineData(AdapterKind.Lora, true), InlineData(AdapterKind.Qlora, true), InlineData(AdapterKind.Lora, false)]
    public void A_growing_neighbour_does_not_end_the_run(AdapterKind kind, bool sameMicroBatch)
    {
        var (calm, pressed) = (new Training(kind, sameMicroBatch).Run(), new Training(kind, sameMicroBatch) { GrowAfter = [2, 4, 6] }.Run());
        Assert.Empty(calm.Events);
        Assert.True(pressed.Events.Count >= 3, string.Join('\n', pressed.Events.Select(e => e.Text)));
        if (sameMicroBatch)
            Assert.Equal(calm.Losses, pressed.Losses);                        // no rung but the micro-batch changes a bit
        else
            Assert.All(calm.Losses.Zip(pressed.Losses), pair => Assert.Equal(pair.First, pair.Second, pair.First * 5e-3));
        Console.WriteLine(string.Join('\n', pressed.Events.Select(e => $"  step {e.Step}: {e.Text}")));
    }

    /// <summary>A fine-tune of a model of random weights, 12 layers of 768.</summary>
    private sealed class Training(AdapterKind kind, bool sameMicroBatch) : IWatcher
    {
        private static readonly Lazy<string> model = new(MakeModel);
        private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;
        private readonly List<double> losses = [];
        private readonly List<nint> taken = [];

        public int[] GrowAfter { get; init; } = [];

        public (List<double> Losses, IReadOnlyList<RunEvent> Events) Run()
        {
            var random = new Random(1);
            File.WriteAllLines(Path.Combine(folder, "train.jsonl"), Enumerable.Range(0, 32).Select(_ => JsonSerializer.Serialize(new { input_ids = Enumerable.Range(0, 1024).Select(_ => random.Next(4000)) })));
            var config = Path.Combine(folder, "memopt.json");
            File.WriteAllText(config, $$"""
                { "model": { "source": {{JsonSerializer.Serialize(model.Value)}} }, "data": { "train": "train.jsonl" }, "adapter": { "kind": "{{(kind == AdapterKind.Qlora ? "qlora" : "lora")}}" },
                  "train": { "batchSize": 8, "steps": 8, "learningRate": 1e-4{{(sameMicroBatch ? ", \"microBatch\": 4" : "")}} } }
                """);
            using var store = new LiteRunStore(Path.Combine(folder, "store"));
            try
            {
                Recipes.FineTune.Run(new Job
                {
                    Config = RunConfigFile.Read(config, []),
                    Model = model.Value,
                    Output = Path.Combine(folder, "out"),
                    Backend = Backend.Load(null, TestBackend.Environment),
                    Store = store,
                    Artifacts = new LocalArtifacts(Path.Combine(folder, "artifacts")),
                    Watcher = this,
                    RunId = "a",
                }, CancellationToken.None);
            }
            finally
            {
                taken.ForEach(Cuda.GiveBack);
                Cuda.ReleaseCached(Gpu.Device);
            }
            return (losses, store.Events("a"));
        }

        /// <summary>Leaves nine tenths of what the steps have taken so far.</summary>
        public void Step(StepRow row, int total)
        {
            losses.Add(row.Loss);
            if (!GrowAfter.Contains(row.Step))
                return;
            var before = Cuda.FreeBytes()!.Value;
            Cuda.ReleaseCached(Gpu.Device);
            var after = Cuda.FreeBytes()!.Value;
            taken.Add(Cuda.Take(after - ((after - before) * 9 / 10)));
        }

        public void Stage(string name, string text)
        {
        }

        public void Progress(string name, long done, long total)
        {
        }

        public void Ledger(IReadOnlyList<LedgerRow> rows, bool measured)
        {
        }

        private static string MakeModel()
        {
            var folder = Directory.CreateTempSubdirectory("memopt model").FullName;
            File.WriteAllText(Path.Combine(folder, "config.json"), """
                { "model_type": "llama", "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4, "vocab_size": 4096,
                  "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "torch_dtype": "bfloat16", "tie_word_embeddings": false }
                """);
            using var scope = NewDisposeScope();
            manual_seed(3);
            SafeTensors.Write(Path.Combine(folder, "model.safetensors"), [.. ModelSpec.Read(folder).Tensors.Select(tensor =>
                (tensor.Name, tensor.Shape.Length == 1 ? ones(tensor.Shape, bfloat16) : randn(tensor.Shape, float32).mul_(0.02).to(bfloat16)))]);
            return folder;
        }
    }
}
