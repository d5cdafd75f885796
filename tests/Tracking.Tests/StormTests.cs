using System.Diagnostics;
using Xunit.Abstractions;

namespace Memopt.Tracking.Tests;

/// <summary>Many processes at one store, some of them killed. ./test.sh --full runs it at the size that
/// bench/RESULTS.md reports; so does MEMOPT_STORM=full.</summary>
public sealed class StormTests(ITestOutputHelper output) : IDisposable
{
    private static readonly bool full =
        Environment.GetEnvironmentVariable("MEMOPT_STORM") == "full"
        || Environment.GetEnvironmentVariable("MEMOPT_TESTS_FULL") == "1";

    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;
    private readonly List<Process> started = [];

    private string Store => Path.Combine(folder, "store");

    private string Acknowledged(string run) => Path.Combine(folder, run + ".acknowledged");

    private string Stop => Path.Combine(folder, "stop");

    private Process Start(params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", ["exec", typeof(StormTests).Assembly.Location, .. arguments])
        {
            RedirectStandardError = true,
            RedirectStandardOutput = true,
        };
        start.Environment["DOTNET_gcServer"] = "0";
        var process = Process.Start(start)!;
        started.Add(process);
        return process;
    }

    private Process Writer(string run, int steps) => Start("write", Store, run, steps.ToString(), Acknowledged(run));

    /// <summary>A reader that is at work.</summary>
    private Process Reader()
    {
        var reader = Start("query", Store, Stop);
        Assert.Equal(Program.Asking, reader.StandardOutput.ReadLine());
        return reader;
    }

    private static void Ended(Process process)
    {
        var (said, wrong) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        Wait.Ended(process);
        Assert.True(process.ExitCode == 0, wrong.Result + said.Result);
    }

    /// <summary>Each step that was acknowledged is there once, with its values.</summary>
    private static void Holds(LiteRunStore store, string run, int acknowledged)
    {
        for (var metric = 0; metric < Program.Metrics; metric++)
        {
            var curve = store.Points(run, $"m{metric}");
            Assert.True(
                curve.Count >= acknowledged,
                $"{run}: {curve.Count} points of m{metric}, {acknowledged} acknowledged"
            );
            for (var i = 0; i < curve.Count; i++)
                Assert.True(
                    curve[i].Step == i + 1 && curve[i].Value == Program.Value(run, metric, i + 1),
                    $"{run}: point {i} of m{metric} is {curve[i]}"
                );
        }
    }

    [Fact]
    public void Store_written_and_queried_by_many_processes_loses_nothing()
    {
        var (writers, steps) = full ? (8, 20_000) : (4, 1500);
        var watch = Stopwatch.StartNew();
        var readers = new[] { Reader(), Reader() };
        var runs = Enumerable.Range(0, writers).Select(i => $"w{i}").ToList();
        runs.Select(run => Writer(run, steps)).ToList().ForEach(Ended);
        var written = watch.Elapsed;
        File.WriteAllText(Stop, "");
        foreach (var reader in readers)
        {
            var said = reader.StandardOutput.ReadToEndAsync();
            Wait.Ended(reader);
            Assert.True(reader.ExitCode == 0, reader.StandardError.ReadToEnd());
            Assert.True(int.Parse(said.Result) > 1, "a reader asked nothing while they wrote");
            output.WriteLine($"a reader asked {said.Result.Trim()} times");
        }
        using var store = new LiteRunStore(Store);
        Assert.Equal(writers, store.Find(new RunQuery { Status = RunStatus.Finished }).Runs.Count);
        foreach (var run in runs)
        {
            Assert.Equal(steps, Program.Acknowledged(Acknowledged(run)));
            Holds(store, run, steps);
        }
        Assert.Empty(store.Check(repair: false));
        output.WriteLine(
            $"{writers} processes, {steps:N0} steps of {Program.Metrics} metrics each: {written.TotalSeconds:F1} "
                + "s, all there"
        );
    }

    [Fact]
    public void Store_whose_writers_are_killed_keeps_acknowledged_steps_and_no_running_status()
    {
        var kills = full ? 100 : 8;
        var random = new Random(20261125);
        var runs = Enumerable.Range(0, full ? 4 : 3).Select(i => $"k{i}").ToList();
        var writers = runs.ToDictionary(run => run, run => Writer(run, int.MaxValue));
        var reader = Reader();
        using var store = new LiteRunStore(Store);
        var known = runs.ToDictionary(run => run, run => 0);
        for (var kill = 0; kill < kills; kill++)
        {
            // One in four may be killed before it has begun; the others have recorded something since they were
            // started.
            var run = runs[random.Next(runs.Count)];
            if (kill % 4 != 0)
                Wait.Until(() => Program.Acknowledged(Acknowledged(run)) > known[run] || writers[run].HasExited);
            Thread.Sleep(random.Next(20, 700));
            Assert.False(writers[run].HasExited, writers[run].HasExited ? writers[run].StandardError.ReadToEnd() : "");
            writers[run].Kill();
            Wait.Ended(writers[run]);
            if (kill % 4 == 3)
            {
                reader.Kill(); // one that may be at work on the database
                Wait.Ended(reader);
                reader = Reader();
            }
            var acknowledged = Program.Acknowledged(Acknowledged(run));
            known[run] = acknowledged;
            Holds(store, run, acknowledged);
            if (store.Get(run) is { } begun)
                Assert.Equal(RunStatus.Interrupted, begun.Status);
            writers[run] = Writer(run, int.MaxValue);
        }
        Assert.False(reader.HasExited, "the reader failed");
        foreach (var writer in writers.Values)
        {
            writer.Kill();
            Wait.Ended(writer);
        }
        File.WriteAllText(Stop, "");
        Ended(reader);
        Assert.DoesNotContain(store.Find(new RunQuery()).Runs, run => run.Status == RunStatus.Running);
        foreach (var run in runs)
            Holds(store, run, Program.Acknowledged(Acknowledged(run)));
        Assert.Empty(store.Check(repair: false));
        output.WriteLine(
            $"{kills + writers.Count} kills, {runs.Sum(run => Program.Acknowledged(Acknowledged(run))):N0} "
                + $"acknowledged steps of {Program.Metrics} metrics, all there"
        );
    }

    public void Dispose()
    {
        foreach (var process in started)
        {
            if (!process.HasExited)
                process.Kill();
            process.Dispose();
        }
        Directory.Delete(folder, recursive: true);
    }
}
