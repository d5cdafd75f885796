using System.Text.Json;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Native;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Tests.Memory;

/// <summary>Memory that runs out in the middle of a run: an allocator's refusals, injected where the run reads its
/// meter.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class LadderTests
{
    private const string Micro = "\"microBatch\": 2",
        Settled = ", \"streamLayers\": 0, \"recompute\": true";

    // What each rung gives up changes no bit in fp32 as long as the micro-batch stays: so the losses are the same
    // numbers, and the adapter the same bytes.
    [Theory, InlineData(AdapterKind.Lora), InlineData(AdapterKind.Qlora)]
    public void Run_out_of_memory_three_times_has_the_losses_of_an_undisturbed_run(AdapterKind kind)
    {
        var undisturbed = new Training(kind, Micro).Run();
        Assert.Empty(undisturbed.Events);
        var refused = new Training(kind, Micro) { RefuseIn = [2, 2, 4, 5] }.Run();
        Assert.Equal([1, 1, 3, 4], refused.Events.Select(e => e.Step));
        Assert.All(refused.Events, e => Assert.Equal("memory", e.Kind));
        Assert.Contains("streamed", refused.Events[^1].Text);
        Assert.Contains("recomputed", refused.Events[^1].Text);
        Assert.Equal(undisturbed.Losses, refused.Losses);
        Assert.Equal(undisturbed.Adapter, refused.Adapter);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Run_lowered_to_a_smaller_micro_batch_at_its_start_equals_one_configured_with_it(bool rehearse)
    {
        var small = new Training(AdapterKind.Lora, "\"microBatch\": 1", Settled).Run();
        var refused = new Training(AdapterKind.Lora, "", Settled + (rehearse ? ", \"rehearse\": true" : ""))
        {
            RefuseIn = [1, 1],
        }.Run();
        Assert.Contains("→ micro-batch 1,", refused.Events[^1].Text);
        Assert.All(
            refused.Events,
            e => Assert.Equal((0, rehearse), (e.Step, e.Text.Contains("rehearsal", StringComparison.Ordinal)))
        );
        Assert.Equal(small.Losses, refused.Losses);
        Assert.Equal(small.Adapter, refused.Adapter);
    }

    [Fact]
    public void Run_lowered_to_a_smaller_micro_batch_midway_changes_the_rounding_alone()
    {
        var (whole, refused) = (
            new Training(AdapterKind.Lora, "", Settled).Run(),
            new Training(AdapterKind.Lora, "", Settled) { RefuseIn = [3, 4] }.Run()
        );
        Assert.Equal(2, refused.Events.Count);
        Assert.All(whole.Losses.Zip(refused.Losses), pair => Assert.Equal(pair.First, pair.Second, pair.First * 1e-5));
    }

    [Fact]
    public void Model_that_does_not_fit_at_loading_is_loaded_with_streamed_layers()
    {
        var (undisturbed, refused) = (
            new Training(AdapterKind.Lora, Micro).Run(),
            new Training(AdapterKind.Lora, Micro) { RefuseLoading = true }.Run()
        );
        Assert.Contains("made ready", Assert.Single(refused.Events).Text);
        Assert.Contains("streamed", refused.Events[0].Text);
        Assert.Equal(undisturbed.Losses, refused.Losses);
        Assert.Equal(undisturbed.Adapter, refused.Adapter);
    }

    [Fact]
    public void Run_under_a_lasting_memory_limit_stays_below_it()
    {
        var free = new Training(AdapterKind.Lora, "").Run();
        var held = new Training(AdapterKind.Lora, "") { Limit = free.Peak * 6 / 10 }.Run();
        Assert.NotEmpty(held.Events);
        Assert.True(held.LastPeak <= free.Peak * 6 / 10, $"{held.LastPeak:N0} of {free.Peak:N0}");
        Assert.All(free.Losses.Zip(held.Losses), pair => Assert.Equal(pair.First, pair.Second, pair.First * 1e-5));
    }

    [Fact]
    public void Run_with_no_memory_left_to_save_fails_and_leaves_a_whole_checkpoint()
    {
        var training = new Training(AdapterKind.Lora, Micro) { RefuseIn = [.. Enumerable.Repeat(4, 50)] };
        var fault = Assert.Throws<UserFault>(() => training.Run());
        Assert.Contains("step 4, and nothing is left", fault.Message);
        Assert.Contains("data.maxLength", fault.Next);
        // Later there is memory again: it goes on from the checkpoint.
        training.StopRefusing();
        var resumed = training.Resume();
        Assert.Equal(new Training(AdapterKind.Lora, Micro).Run().Adapter, resumed.Adapter);
    }

    /// <summary>A fine-tune of the nano model over rows of 64 tokens.</summary>
    private sealed class Training(AdapterKind kind, string train, string memory = "") : ITrainingObserver
    {
        private readonly string folder = Directory.CreateTempSubdirectory("memopt ladder").FullName;
        private readonly List<double> losses = [];
        private long seen,
            peak,
            last,
            start;
        private int step = 1;
        private bool refused,
            ready;
        private Queue<int> refusals = [];

        /// <summary>Steps, from 1, in which memory is refused; a step that comes twice is refused again when it is made
        /// again.</summary>
        public IReadOnlyList<int> RefuseIn { get; init; } = [];

        /// <summary>Whether memory is refused once, before the first step's turn has come.</summary>
        public bool RefuseLoading { get; set; }

        /// <summary>Bytes allowed at any time.</summary>
        public long? Limit { get; set; }

        public (List<double> Losses, IReadOnlyList<RunEvent> Events, byte[] Adapter, long Peak, long LastPeak) Run()
        {
            refusals = new(RefuseIn);
            File.WriteAllLines(
                Path.Combine(folder, "train.jsonl"),
                Enumerable
                    .Range(0, 16)
                    .Select(n =>
                        JsonSerializer.Serialize(
                            new { input_ids = Enumerable.Range(0, 64).Select(i => (i * 37 + n * 101) % 4000) }
                        )
                    )
            );
            var rehearse = memory.Contains("rehearse", StringComparison.Ordinal) ? "" : ", \"rehearse\": false";
            File.WriteAllText(
                Path.Combine(folder, "memopt.json"),
                $$"""
                { "model": { "source": {{JsonSerializer.Serialize(
                    TestBackend.Nano
                )}} }, "data": { "train": "train.jsonl" }, "adapter": { "kind": "{{(
                    kind == AdapterKind.Qlora ? "qlora" : "lora"
                )}}", "rank": 4 },
                  "checkpoint": { "every": 2 }, "train": { "batchSize": 4, "steps": 6, "learningRate": 1e-3{{(
                    train.Length > 0 ? ", " + train : ""
                )}} }, "memory": { "strategy": "auto"{{memory}}{{rehearse}} } }
                """
            );
            return Resume();
        }

        /// <summary>Nothing is refused from now on.</summary>
        public void StopRefusing() => refusals.Clear();

        /// <summary>The same config again.</summary>
        public (List<double> Losses, IReadOnlyList<RunEvent> Events, byte[] Adapter, long Peak, long LastPeak) Resume()
        {
            using var store = new LiteRunStore(Path.Combine(folder, "store"));
            start = new Meter().Now();
            var result = Recipes.FineTuneRecipe.Run(
                new FineTuneJob
                {
                    Config = RunConfigFile.Read(Path.Combine(folder, "memopt.json"), []),
                    Model = TestBackend.Nano,
                    Output = Path.Combine(folder, "out"),
                    Backend = Backend.Load(null, TestBackend.Environment) is { Kind: "cpu" } cpu
                        ? cpu
                        : Backend.Load("cpu", TestBackend.Environment),
                    Store = store,
                    Artifacts = new LocalArtifacts(Path.Combine(folder, "artifacts")),
                    Observer = this,
                    RunId = "a",
                    MemoryLimit = Allowed,
                },
                CancellationToken.None
            );
            Assert.Equal(RunStatus.Finished, result.Status);
            return (
                losses,
                store.Events("a"),
                File.ReadAllBytes(Path.Combine(result.Adapter!, "adapter_model.safetensors")),
                peak - start,
                last - start
            );
        }

        public void Stage(string name, string text) => ready |= name == "training";

        public void Progress(string name, long done, long total) { }

        public void Ledger(IReadOnlyList<LedgerRow> rows, bool measured) { }

        public void Step(StepRow row, int total)
        {
            losses.Add(row.Loss);
            (step, last, seen) = (row.Step + 1, seen, 0);
            while (refusals.TryPeek(out var next) && next < step)
                refusals.Dequeue();
        }

        /// <summary>Asked at every reading of the meter, and once after each refusal: how much room there is
        /// now.</summary>
        private long? Allowed()
        {
            seen = Math.Max(seen, new Meter().Now());
            peak = Math.Max(peak, seen);
            if (RefuseLoading && !ready)
            {
                RefuseLoading = false;
                return -1L << 40;
            }
            if (!refused && ready && refusals.TryPeek(out var next) && next == step)
            {
                refusals.Dequeue();
                refused = true;
                return -1L << 40;
            }
            refused = false;
            return Limit;
        }
    }
}
