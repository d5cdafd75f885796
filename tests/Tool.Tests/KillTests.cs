using System.Diagnostics;

namespace Memopt.Tool.Tests;

/// <summary>A run that is killed again and again ends with the same bytes as one that is left alone.</summary>
public sealed class KillTests
{
    [Fact]
    public void Thirty_kills_change_no_byte_of_the_adapter()
    {
        var calm = Cli.Workshop();
        Assert.Equal(0, Cli.Run(calm, "run").Exit);

        var stormy = Cli.Workshop();
        var random = new Random(1);
        var kills = 0;
        // Enough kills in every phase: start-up, loading, mid-epoch, last epoch, saving; later ones wait longer so that the run moves on.
        while (kills < 30)
        {
            using var process = Cli.Start(stormy, "run");
            var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
            if (process.WaitForExit(TimeSpan.FromMilliseconds(random.Next(150, 2300))))
            {
                // Finished early: begin again in the same folder so that all thirty kills hit a run.
                Assert.True(process.ExitCode == 0, error.Result);
                Same(calm, stormy);
                Directory.Delete(Path.Combine(stormy, ".memopt", "memopt"), recursive: true);
                continue;
            }
            process.Kill();
            process.WaitForExit();
            kills++;
            Assert.DoesNotContain("error:", error.Result);
        }
        Assert.DoesNotContain(Cli.Run(stormy, "runs", "list", "--json").Json.AsArray(), run => (string?)run!["status"] == "running");
        var last = Cli.Run(stormy, "run", "--json");
        Assert.True(last.Exit == 0, last.Error);
        Same(calm, stormy);
        var steps = Cli.Run(stormy, "runs", "show", (string)last.Json["runId"]!, "--json").Json["steps"]!.AsArray().Select(step => (int)step!["step"]!).ToList();
        Assert.Equal(Enumerable.Range(1, 40), steps);
    }

    [Fact]
    public void An_interrupt_leaves_a_checkpoint_and_the_run_goes_on()
    {
        var folder = Cli.Workshop();
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

    private static void Same(string calm, string stormy)
    {
        foreach (var file in new[] { "adapter_model.safetensors", "adapter_config.json" })
            Assert.Equal(File.ReadAllBytes(Path.Combine(calm, ".memopt/memopt/adapter", file)), File.ReadAllBytes(Path.Combine(stormy, ".memopt/memopt/adapter", file)));
    }
}
