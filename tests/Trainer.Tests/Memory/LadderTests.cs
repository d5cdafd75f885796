using System.Text.Json;
using Memopt.Tracking;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Native;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Tests.Memory;

/// <summary>Memory that runs out in the middle of a run, by a limit on the tensors' bytes that shrinks as it goes.</summary>
[Collection(Alone.Name)]
public sealed class LadderTests
{
    // What each rung gives up changes no bit in fp32 as long as the micro-batch stays: so the losses are the same numbers, and the adapter the same bytes.
    [Theory, InlineData(AdapterKind.Lora, 3), InlineData(AdapterKind.Qlora, 2)]
    public void Times_out_of_memory_and_the_losses_are_those_of_an_undisturbed_run(AdapterKind kind, int times)
    {
        var undisturbed = new Training(kind, "\"microBatch\": 2").Run();
        Assert.Empty(undisturbed.Events);
        var squeezed = new Training(kind, "\"microBatch\": 2") { SqueezeAfter = [.. new[] { 2, 4, 6 }.Take(times)] }.Run();
        Assert.True(squeezed.Events.Count >= times, string.Join('\n', squeezed.Events.Select(e => e.Text)));
        Assert.All(squeezed.Events, e => Assert.Equal("memory", e.Kind));
        Assert.Contains("streamed", squeezed.Events[^1].Text);
        Assert.Equal(undisturbed.Losses, squeezed.Losses);
        Assert.Equal(undisturbed.Adapter, squeezed.Adapter);
    }

    [Fact]
    public void A_smaller_micro_batch_is_the_run_that_began_with_it()
    {
        var small = new Training(AdapterKind.Lora, "\"microBatch\": 1", ", \"streamLayers\": 0, \"recompute\": true").Run();
        var squeezed = new Training(AdapterKind.Lora, "\"steps\": 8", ", \"streamLayers\": 0, \"recompute\": true") { Limit = small.Peak + (small.Peak >> 5) }.Run();
        Assert.Contains("micro-batch 1", squeezed.Events[^1].Text);
        Assert.Equal(small.Losses, squeezed.Losses);
        Assert.Equal(small.Adapter, squeezed.Adapter);
    }

    [Fact]
    public void A_rehearsal_finds_it_before_the_first_step_and_leaves_no_trace()
    {
        var small = new Training(AdapterKind.Lora, "\"microBatch\": 1", ", \"streamLayers\": 0, \"recompute\": true").Run();
        var rehearsed = new Training(AdapterKind.Lora, "\"steps\": 8", ", \"streamLayers\": 0, \"recompute\": true, \"rehearse\": true") { Limit = small.Peak + (small.Peak >> 5) }.Run();
        Assert.All(rehearsed.Events, e => Assert.Equal(0, e.Step));
        Assert.Contains("rehearsal", rehearsed.Events[0].Text);
        Assert.Equal(small.Losses, rehearsed.Losses);
        Assert.Equal(small.Adapter, rehearsed.Adapter);
    }

    [Fact]
    public void When_nothing_is_left_to_give_up_it_says_so_and_the_checkpoint_is_whole()
    {
        var training = new Training(AdapterKind.Lora, "\"microBatch\": 1") { SqueezeAfter = [2, 3, 4, 5, 6, 7], Rows = 4 };
        var fault = Assert.Throws<UserFault>(() => training.Run());
        Assert.Contains("nothing is left", fault.Message);
        Assert.Contains("data.maxLength", fault.Next);
    }

    /// <summary>A fine-tune of the nano model over rows of 128 tokens.</summary>
    private sealed class Training(AdapterKind kind, string train, string memory = "") : IWatcher
    {
        private readonly string folder = Directory.CreateTempSubdirectory("memopt ladder").FullName;
        private readonly List<double> losses = [];
        private long seen, peak, start;

        /// <summary>Steps after which less is allowed than they took.</summary>
        public int[] SqueezeAfter { get; init; } = [];

        /// <summary>Bytes allowed from the beginning.</summary>
        public long? Limit { get; set; }

        public int Rows { get; init; } = 16;

        public (List<double> Losses, IReadOnlyList<RunEvent> Events, byte[] Adapter, long Peak) Run()
        {
            var data = Enumerable.Range(0, Rows).Select(n => JsonSerializer.Serialize(new { input_ids = Enumerable.Range(0, 128).Select(i => (i * 37 + n * 101) % 4000) }));
            File.WriteAllLines(Path.Combine(folder, "train.jsonl"), data);
            var rehearse = memory.Contains("rehearse", StringComparison.Ordinal) ? "" : ", \"rehearse\": false";
            var config = Path.Combine(folder, "memopt.json");
            File.WriteAllText(config, $$"""
                { "model": { "source": {{JsonSerializer.Serialize(TestBackend.Nano)}} }, "data": { "train": "train.jsonl" }, "adapter": { "kind": "{{(kind == AdapterKind.Qlora ? "qlora" : "lora")}}", "rank": 4 },
                  "train": { "batchSize": 4, "steps": 8, "learningRate": 1e-3, {{train}} }, "memory": { "strategy": "auto"{{memory}}{{rehearse}} } }
                """.Replace("\"steps\": 8, \"learningRate\": 1e-3, \"steps\": 8", "\"steps\": 8, \"learningRate\": 1e-3", StringComparison.Ordinal));
            using var store = new LiteRunStore(Path.Combine(folder, "store"));
            start = new Meter().Now();
            var result = FineTune.Run(new Job
            {
                Config = RunConfigFile.Read(config, []),
                Model = TestBackend.Nano,
                Output = Path.Combine(folder, "out"),
                Backend = Backend.Load(null, TestBackend.Environment) is { Kind: "cpu" } cpu ? cpu : Backend.Load("cpu", TestBackend.Environment),
                Store = store,
                Artifacts = new LocalArtifacts(Path.Combine(folder, "artifacts")),
                Watcher = this,
                RunId = "a",
                MemoryLimit = Allowed,
            }, CancellationToken.None);
            Assert.Equal(RunStatus.Finished, result.Status);
            return (losses, store.Events("a"), File.ReadAllBytes(Path.Combine(result.Adapter!, "adapter_model.safetensors")), peak - start);
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

        public void Step(StepRow row, int total)
        {
            losses.Add(row.Loss);
            if (SqueezeAfter.Contains(row.Step))
                Limit = seen - start - (seen - start) / 100;
            seen = 0;
        }

        /// <summary>Asked wherever the run reads its meter: what is in use then is what a limit must lie below.</summary>
        private long? Allowed()
        {
            seen = Math.Max(seen, new Meter().Now());
            peak = Math.Max(peak, seen);
            return Limit;
        }
    }
}
