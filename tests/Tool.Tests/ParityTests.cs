using System.Buffers.Binary;
using System.Text.Json.Nodes;

namespace Memopt.Tool.Tests;

/// <summary>The golden numbers of transformers and PEFT again, by the commands a user types: eval, run, runs show,
/// infer.</summary>
public sealed class ParityTests
{
    /// <summary>A family that normalizes queries and keys and one whose matrices are fused; all of them only with
    /// --full, for the golden tests of the trainer have all each time.</summary>
    public static TheoryData<string> Families =>
        Cli.Full ? new("llama", "qwen2", "qwen3", "mistral", "phi3") : new("qwen3", "phi3");

    [Theory, MemberData(nameof(Families))]
    public void Commands_on_a_golden_family_give_the_numbers_of_transformers_and_PEFT(string family)
    {
        var model = Path.Combine(Cli.Repository, "tests", "Trainer.Tests", "Golden", family);
        var golden = new Golden(Path.Combine(model, "golden.safetensors"));
        var adapter = Path.Combine(model, "adapter-start");
        var folder = Cli.NewProject(
            new JsonObject
            {
                ["model"] = new JsonObject { ["source"] = model, ["dtype"] = "float32" },
                ["data"] = new JsonObject { ["train"] = "train.jsonl", ["shuffle"] = false },
                ["adapter"] = new JsonObject { ["from"] = adapter },
                ["train"] = new JsonObject
                {
                    ["steps"] = 10,
                    ["batchSize"] = 4,
                    ["microBatch"] = 2,
                    ["learningRate"] = 1e-2,
                    ["weightDecay"] = 0.01,
                },
            }.ToJsonString()
        );
        var first = golden.Rows("input_ids", "labels");
        File.WriteAllLines(Path.Combine(folder, "eval.jsonl"), first);
        File.WriteAllLines(Path.Combine(folder, "train.jsonl"), first.Concat(golden.Rows("input_ids2", "labels2")));

        Near(
            golden.Floats("loss")[0],
            (double)Cli.Run(folder, "eval", "--model", model, "--data", "eval.jsonl", "--json").Json["loss"]!,
            1e-4
        );
        Near(
            golden.Floats("lora_loss")[0],
            (double)
                Cli.Run(folder, "eval", "--model", model, "--adapter", adapter, "--data", "eval.jsonl", "--json").Json[
                    "loss"
                ]!,
            1e-4
        );

        var greedy = golden.Longs("greedy");
        var answer = Cli.Run(
            folder,
            "infer",
            "--model",
            model,
            "--ids",
            string.Join(",", greedy[..12]),
            "--max-tokens",
            "16",
            "--ignore-eos",
            "--json"
        );
        Assert.Equal(greedy[12..], answer.Json["ids"]!.AsArray().Select(id => (long)id!));

        var run = Cli.Run(folder, "run", "--json");
        Assert.True(run.Exit == 0, run.Error);
        var steps = Cli.Run(folder, "runs", "show", (string)run.Json["runId"]!, "--json").Json["steps"]!.AsArray();
        var (losses, norms) = (golden.Doubles("traj_loss"), golden.Doubles("traj_gradnorm"));
        Assert.Equal(10, steps.Count);
        for (var i = 0; i < 10; i++)
        {
            Assert.Equal(i + 1, (int)steps[i]!["step"]!);
            Near(losses[i], (double)steps[i]!["loss"]!, 1e-3);
            Near(norms[i], (double)steps[i]!["gradNorm"]!, 1e-3);
        }

        var merged = Path.Combine(folder, "merged");
        Assert.Equal(
            0,
            Cli.Run(folder, "export", "--merge", "--model", model, "--adapter", adapter, "--out", merged).Exit
        );
        Near(
            golden.Floats("lora_loss")[0],
            (double)Cli.Run(folder, "eval", "--model", merged, "--data", "eval.jsonl", "--json").Json["loss"]!,
            1e-4
        );
    }

    private static void Near(double expected, double actual, double relative) =>
        Assert.True(Math.Abs(expected - actual) <= relative * Math.Abs(expected), $"{actual} for {expected}");

    /// <summary>A second, independent reading of safetensors.</summary>
    private sealed class Golden
    {
        private readonly byte[] bytes;
        private readonly JsonNode header;
        private readonly int data;

        public Golden(string file)
        {
            bytes = File.ReadAllBytes(file);
            data = 8 + (int)BinaryPrimitives.ReadInt64LittleEndian(bytes);
            header = JsonNode.Parse(bytes.AsSpan(8, data - 8))!;
        }

        public long[] Longs(string name) =>
            [.. Cells(name, 8).Select(at => BinaryPrimitives.ReadInt64LittleEndian(bytes.AsSpan(at)))];

        public double[] Doubles(string name) =>
            [.. Cells(name, 8).Select(at => BinaryPrimitives.ReadDoubleLittleEndian(bytes.AsSpan(at)))];

        public float[] Floats(string name) =>
            [.. Cells(name, 4).Select(at => BinaryPrimitives.ReadSingleLittleEndian(bytes.AsSpan(at)))];

        public IEnumerable<string> Rows(string ids, string labels) =>
            Longs(ids)
                .Chunk(24)
                .Zip(Longs(labels).Chunk(24))
                .Select(row =>
                    $"{{\"input_ids\": [{string.Join(", ", row.First)}], \"labels\": ["
                    + $"{string.Join(", ", row.Second)}]}}"
                )
                .ToList();

        private IEnumerable<int> Cells(string name, int size)
        {
            var (from, to) = ((int)header[name]!["data_offsets"]![0]!, (int)header[name]!["data_offsets"]![1]!);
            for (var at = from; at < to; at += size)
                yield return data + at;
        }
    }
}
