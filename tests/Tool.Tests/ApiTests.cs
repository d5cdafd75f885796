using System.Text.Json.Nodes;

namespace Memopt.Tool.Tests;

/// <summary>The same config and rows from code and by the command: one result, one record.</summary>
public sealed class ApiTests
{
    [Fact]
    public async Task Training_from_code_equals_the_tools_to_the_byte()
    {
        var (file, code) = (Cli.NewProject(), Cli.NewProject());
        var run = Cli.Run(file, "run", "--json", "--set", "train.steps=4");
        Assert.True(run.Exit == 0, run.Error);
        var tuned = await FineTune
            .Create(Path.Combine(code, "memopt.json"))
            .With("train.steps", 4)
            .WithData(Chats(code, "train"))
            .WithEvaluation(Chats(code, "eval"))
            .RunAsync();
        foreach (var name in new[] { "adapter_model.safetensors", "adapter_config.json" })
            Assert.Equal(
                File.ReadAllBytes(Path.Combine((string)run.Json["adapter"]!, name)),
                File.ReadAllBytes(Path.Combine(tuned.AdapterFolder!, name))
            );
        Assert.Equal((double)run.Json["eval"]!["loss"]!, tuned.Loss);

        // The tool takes the program's run for its own when the same rows are in a file, and the program the tool's.
        foreach (var name in new[] { "train", "eval" })
            Chat.WriteLines(Path.Combine(code, name + ".jsonl"), Chats(file, name));
        var again = Cli.Run(code, "run", "--json", "--set", "train.steps=4");
        Assert.Equal((tuned.RunId, true), ((string?)again.Json["runId"], (bool)again.Json["upToDate"]!));
        var shown = Cli.Run(code, "runs", "show", tuned.RunId, "--json").Json;
        Assert.Equal(4, shown["steps"]!.AsArray().Count);
        Assert.True(
            (await FineTune.Create(Path.Combine(code, "memopt.json")).With("train.steps", 4).RunAsync()).UpToDate
        );
    }

    private static IEnumerable<Chat> Chats(string folder, string name) =>
        File.ReadLines(Path.Combine(folder, name + ".jsonl"))
            .Select(line => new Chat([
                .. JsonNode.Parse(line)!["messages"]!
                    .AsArray()
                    .Select(turn => new ChatTurn((string)turn!["role"]!, (string)turn["content"]!)),
            ]));
}
