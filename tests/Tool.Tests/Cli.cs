using System.Diagnostics;
using System.Text.Json.Nodes;

[assembly: CollectionBehavior(DisableTestParallelization = true)]

namespace Memopt.Tool.Tests;

/// <summary>The tool as a user starts it: a process, two streams, an exit code.</summary>
internal sealed record Outcome(int Exit, string Output, string Error)
{
    public JsonNode Json => JsonNode.Parse(Output)!;
}

internal static class Cli
{
    public static string Repository { get; } = Above(AppContext.BaseDirectory);

    /// <summary>The tool as it was built beside these tests.</summary>
    public static string Tool { get; } = Path.Combine(AppContext.BaseDirectory, "memopt.dll");

    public static Process Start(string folder, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", ["exec", Tool, .. arguments]) { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["DOTNET_gcServer"] = "0";
        return Process.Start(start)!;
    }

    public static Outcome Run(string folder, params string[] arguments)
    {
        using var process = Start(folder, arguments);
        return Wait(process);
    }

    public static Outcome Wait(Process process)
    {
        var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        Assert.True(process.WaitForExit(240_000), "the tool did not end");
        process.WaitForExit();
        return new(process.ExitCode, output.Result, error.Result);
    }

    /// <summary>A new folder with a small fine-tune of the embedded model in it; 40 steps of 6 rows in three micro-batches.</summary>
    public static string Workshop(string? config = null)
    {
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        var sample = Path.Combine(Repository, "samples", "word-class");
        File.WriteAllLines(Path.Combine(folder, "train.jsonl"), File.ReadLines(Path.Combine(sample, "train.jsonl")).Take(60));
        File.WriteAllLines(Path.Combine(folder, "eval.jsonl"), File.ReadLines(Path.Combine(sample, "eval.jsonl")).Take(8));
        File.WriteAllText(Path.Combine(folder, "memopt.json"), config ?? """
            {
              "model": { "source": "embedded:nano" },
              "data": { "train": "train.jsonl", "eval": "eval.jsonl", "maxLength": 64 },
              "adapter": { "kind": "qlora", "rank": 4, "alpha": 8, "dropout": 0.1 },
              "train": { "epochs": 4, "batchSize": 6, "microBatch": 2, "learningRate": 1e-3 },
              "checkpoint": { "every": 3 }
            }
            """);
        return folder;
    }

    private static string Above(string folder)
    {
        while (!File.Exists(Path.Combine(folder, "Tool.sln")))
            folder = Path.GetDirectoryName(folder) ?? throw new DirectoryNotFoundException("Tool.sln is not above the tests");
        return folder;
    }
}
