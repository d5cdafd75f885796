using System.Diagnostics;
using System.Text.Json.Nodes;

namespace Memopt.Tool.Tests;

/// <summary>The tool as a user starts it: a process, two streams, an exit code.</summary>
internal sealed record Outcome(int Exit, string Output, string Error)
{
    public JsonNode Json => JsonNode.Parse(Output)!;
}

internal static class Cli
{
    public static string Repository { get; } = Above(AppContext.BaseDirectory);

    /// <summary>The tool as it was built with these tests.</summary>
    public static string Tool { get; } = Path.Combine(AppContext.BaseDirectory, "tool", "memopt.dll");

    /// <summary>Whether the long forms run: ./test.sh --full.</summary>
    public static bool Full { get; } = Environment.GetEnvironmentVariable("MEMOPT_TESTS_FULL") == "1";

    private static readonly AsyncLocal<string?> account = new();

    /// <summary>The connection to the storage account that the processes of this test are given; those of tests beside
    /// it are not.</summary>
    public static string? Account
    {
        set => account.Value = value;
    }

    public static Process Start(string folder, params string[] arguments) => Process.Start(Command(folder, arguments))!;

    /// <summary>The tool as a shell starts it: an interrupt ends it, although these tests may have been started where
    /// interrupts are ignored.</summary>
    public static ProcessStartInfo Command(string folder, params string[] arguments)
    {
        string[] program = ["dotnet", "exec", Tool, .. arguments];
        if (OperatingSystem.IsLinux())
            program = ["env", "--default-signal=INT,HUP", .. program];
        var start = new ProcessStartInfo(program[0], program[1..])
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["DOTNET_gcServer"] = "0";
        if (account.Value is { } connection)
            start.Environment["AZURE_STORAGE_CONNECTION_STRING"] = connection;
        return start;
    }

    public static Outcome Run(string folder, params string[] arguments)
    {
        using var process = Start(folder, arguments);
        return Wait(process);
    }

    /// <summary>Longer than anything takes that ends, on a machine however slow; where all is well nothing waits for
    /// it.</summary>
    public static TimeSpan Patience { get; } = TimeSpan.FromMinutes(20);

    public static Outcome Wait(Process process)
    {
        var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        if (!process.WaitForExit(Patience))
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"the tool did not end: {error.Result}");
        }
        process.WaitForExit();
        return new(process.ExitCode, output.Result, error.Result);
    }

    /// <summary>Waits until a process that goes on has said a line with this in it.</summary>
    public static void Await(Process process, string text)
    {
        var said = new List<string>();
        while (said is [] || !said[^1].Contains(text, StringComparison.Ordinal))
            said.Add(
                process.StandardError.ReadLine()
                    ?? throw new InvalidOperationException(
                        $"it ended and never said \"{text}\":\n{string.Join('\n', said)}"
                    )
            );
    }

    /// <summary>Ctrl+C, so many times at once.</summary>
    public static void Interrupt(Process process, int times = 1, string signal = "INT")
    {
        using var shell = Process.Start(
            "sh",
            ["-c", string.Concat(Enumerable.Repeat($"kill -{signal} {process.Id}; ", times))]
        );
        shell.WaitForExit();
    }

    /// <summary>A new folder with a small fine-tune of the embedded model in it; 12 steps of 4 rows in two
    /// micro-batches, in two epochs.</summary>
    /// <param name="config">Another config.</param>
    /// <param name="steps">Fewer steps, for a test that needs a run and nothing of its length: a step takes a third of
    /// a second of processor time.</param>
    public static string NewProject(string? config = null, int? steps = null)
    {
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        var sample = Path.Combine(Repository, "samples", "word-class");
        File.WriteAllLines(
            Path.Combine(folder, "train.jsonl"),
            File.ReadLines(Path.Combine(sample, "train.jsonl")).Take(24)
        );
        File.WriteAllLines(
            Path.Combine(folder, "eval.jsonl"),
            File.ReadLines(Path.Combine(sample, "eval.jsonl")).Take(8)
        );
        var length = steps is null ? "\"epochs\": 2" : $"\"steps\": {steps}";
        File.WriteAllText(
            Path.Combine(folder, "memopt.json"),
            config
                ?? $$"""
                {
                  "model": { "source": "embedded:nano" },
                  "data": { "train": "train.jsonl", "eval": "eval.jsonl", "maxLength": 64 },
                  "adapter": { "kind": "qlora", "rank": 4, "alpha": 8, "dropout": 0.1 },
                  "train": { {{length}}, "batchSize": 4, "microBatch": 2, "learningRate": 1e-3 },
                  "checkpoint": { "every": 3 }
                }
                """
        );
        return folder;
    }

    private static readonly Lazy<string> trained = new(() =>
    {
        var folder = NewProject();
        var outcome = Run(folder, "run");
        Assert.True(outcome.Exit == 0, outcome.Error);
        return folder;
    });

    /// <summary>A new project that one process has trained undisturbed: the same for all tests that compare their
    /// adapters with its one, and changed by none.</summary>
    public static string Trained => trained.Value;

    /// <summary>Gives a project more rows to evaluate on than are done while a test waits: its runs make their steps,
    /// and then judge until they are stopped or killed, whenever that comes. Gives what puts the few rows back.
    /// </summary>
    public static Action Endless(string folder)
    {
        var path = Path.Combine(folder, "eval.jsonl");
        var few = File.ReadAllLines(path);
        File.WriteAllLines(path, Enumerable.Repeat(few, 2_000).SelectMany(rows => rows));
        return () => File.WriteAllLines(path, few);
    }

    private static string Above(string folder)
    {
        while (!File.Exists(Path.Combine(folder, "Tool.sln")))
            folder =
                Path.GetDirectoryName(folder)
                ?? throw new DirectoryNotFoundException("Tool.sln is not above the tests");
        return folder;
    }
}
