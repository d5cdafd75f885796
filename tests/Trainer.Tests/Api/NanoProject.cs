using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Tracking;
using Memopt.Trainer.Tests;

namespace Memopt.Tests;

/// <summary>A folder with a small config of the nano model, and the sample's chats as a program would have
/// them.</summary>
internal sealed class NanoProject : IDisposable
{
    public NanoProject() =>
        File.WriteAllText(
            Config,
            $$"""
            { "model": { "source": {{JsonSerializer.Serialize(
                TestBackend.Nano
            )}} }, "data": { "train": "none.jsonl", "maxLength": 64 }, "adapter": { "rank": 4, "alpha": 8, "dropout": 0.1 },
              "train": { "steps": 8, "batchSize": 6, "learningRate": 2e-3 }, "checkpoint": { "every": 3 }, "tracking": { "experiment": "api" } }
            """
        );

    public string Folder { get; } = Directory.CreateTempSubdirectory("memopt api ").FullName;

    public string Config => Path.Combine(Folder, "memopt.json");

    public string Rows => Path.Combine(Folder, ".memopt", "memopt", "rows");

    public FineTune FineTune => FineTune.Create(Config).WithData(Chats("train", 40)).WithBackend("cpu");

    public static IEnumerable<Chat> Chats(string file, int count) =>
        File.ReadLines(Path.Combine(TestBackend.Repository, "samples", "word-class", file + ".jsonl"))
            .Take(count)
            .Select(line => new Chat([
                .. JsonNode.Parse(line)!["messages"]!
                    .AsArray()
                    .Select(turn => new ChatTurn((string)turn!["role"]!, (string)turn["content"]!)),
            ]));

    public LiteRunStore Store() => new(Path.Combine(Folder, ".memopt", "store"));

    public static byte[] Adapter(FineTuneResult result) =>
        File.ReadAllBytes(Path.Combine(result.AdapterFolder!, "adapter_model.safetensors"));

    public void Dispose() => Directory.Delete(Folder, recursive: true);
}
