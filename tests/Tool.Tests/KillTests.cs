using System.Diagnostics;

namespace Memopt.Tool.Tests;

/// <summary>A run that is killed again and again ends with the same bytes as one that is left alone.</summary>
public sealed class KillTests
{
    private const int steps = 12;

    [Fact]
    public void Training_killed_repeatedly_writes_the_same_adapter_bytes()
    {
        var calm = Cli.Trained;
        var stormy = Cli.NewProject();
        var end = Cli.Endless(stormy);
        var random = new Random(1);
        var place = Path.Combine(stormy, ".memopt", "memopt");
        for (var kill = 0; kill < (Cli.Full ? 32 : 5); kill++)
        {
            // Five from the start-up to the end: the first as it starts anew, each other soon after another checkpoint
            // of four.
            if (kill % 5 == 0 && kill > 0)
                Directory.Delete(place, recursive: true);
            var next = kill % 5 == 0 ? 0 : Math.Min(Newest(place) + 1, steps);
            using var process = Cli.Start(stormy, "run");
            var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
            while (Newest(place) < next && !process.HasExited)
                Thread.Sleep(5);
            Assert.False(
                process.WaitForExit(TimeSpan.FromMilliseconds(random.Next(300))),
                process.HasExited ? error.Result : ""
            );
            process.Kill();
            process.WaitForExit();
            Assert.DoesNotContain("error:", error.Result);
        }
        end();
        KilledAtTheEnd(calm, stormy, random);
        Assert.DoesNotContain(
            Cli.Run(stormy, "runs", "list", "--json").Json.AsArray(),
            run => (string?)run!["status"] == "running"
        );
        var last = Cli.Run(stormy, "run", "--json");
        Assert.True(last.Exit == 0, last.Error);
        Same(calm, stormy);
        var recorded = Cli.Run(stormy, "runs", "show", (string)last.Json["runId"]!, "--json").Json["steps"]!
            .AsArray()
            .Select(step => (int)step!["step"]!)
            .ToList();
        Assert.Equal(Enumerable.Range(1, steps), recorded);
    }

    /// <summary>Kills a run that has nothing left to do but to judge and to save, again and again from how it stood
    /// before. One that ends before its kill is whole.
    /// </summary>
    private static void KilledAtTheEnd(string calm, string stormy, Random random)
    {
        var (store, before) = (Path.Combine(stormy, ".memopt"), Path.Combine(stormy, "before"));
        Copy(store, before);
        var kills = 0;
        while (kills < (Cli.Full ? 16 : 2))
        {
            Directory.Delete(store, recursive: true);
            Copy(before, store);
            using var process = Cli.Start(stormy, "run");
            var output = process.StandardOutput.ReadToEndAsync();
            Cli.Await(process, "evaluation   ");
            var error = process.StandardError.ReadToEndAsync();
            if (process.WaitForExit(TimeSpan.FromMilliseconds(random.Next(400))))
            {
                Assert.True(process.ExitCode == 0, error.Result);
                Same(calm, stormy);
                continue;
            }
            process.Kill();
            process.WaitForExit();
            Assert.DoesNotContain("error:", error.Result);
            kills++;
        }
    }

    private static void Copy(string from, string to)
    {
        using var cp = Process.Start("cp", ["-a", from, to]);
        cp.WaitForExit();
        Assert.Equal(0, cp.ExitCode);
    }

    /// <summary>The step of a run's newest checkpoint; 0 where there is none.</summary>
    private static int Newest(string place)
    {
        var checkpoints = Path.Combine(place, "checkpoints");
        return Directory.Exists(checkpoints)
            ? Directory
                .EnumerateDirectories(checkpoints, "step-*")
                .Select(path => int.Parse(Path.GetFileName(path)[5..]))
                .DefaultIfEmpty()
                .Max()
            : 0;
    }

    [Fact]
    public void Training_interrupted_leaves_a_checkpoint_and_resumes()
    {
        var folder = Cli.NewProject();
        var end = Cli.Endless(folder);
        using var process = Cli.Start(folder, "run");
        Cli.Await(process, "step 1 / ");
        // A shell sends one to every process of the terminal, a cancelled build another.
        Cli.Interrupt(process, times: 3);
        var stopped = Cli.Wait(process);
        end();
        Assert.Equal(130, stopped.Exit);
        Assert.Contains("stopping     after this step", stopped.Error);
        Assert.Contains("run again to go on", stopped.Error);
        Assert.Equal("stopped", (string?)Cli.Run(folder, "runs", "list", "--json").Json[0]!["status"]);
        var again = Cli.Run(folder, "run", "--json");
        Assert.Contains("goes on after step", again.Error);
        Assert.Equal("finished", (string?)again.Json["status"]);
        Assert.True((bool)Cli.Run(folder, "run", "--json").Json["upToDate"]!);
    }

    [Fact]
    public void Training_whose_terminal_closes_leaves_a_checkpoint()
    {
        var folder = Cli.NewProject();
        var end = Cli.Endless(folder);
        using var process = Cli.Start(folder, "run");
        Cli.Await(process, "step 1 / ");
        Cli.Interrupt(process, signal: "HUP");
        var stopped = Cli.Wait(process);
        end();
        Assert.Equal(130, stopped.Exit);
        Assert.True(Newest(Path.Combine(folder, ".memopt", "memopt")) > 0, stopped.Error);
    }

    private static void Same(string calm, string stormy)
    {
        foreach (var file in new[] { "adapter_model.safetensors", "adapter_config.json" })
            Assert.Equal(
                File.ReadAllBytes(Path.Combine(calm, ".memopt/memopt/adapter", file)),
                File.ReadAllBytes(Path.Combine(stormy, ".memopt/memopt/adapter", file))
            );
    }
}
