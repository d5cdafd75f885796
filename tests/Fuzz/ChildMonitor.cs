using System.Diagnostics;
using System.Globalization;

namespace Memopt.Fuzz;

/// <summary>Starts children, and sees when one hangs, dies or grows.</summary>
/// <param name="kept">Where inputs that fail are kept.</param>
/// <param name="seed">What the inputs follow from.</param>
/// <param name="tell">Told of each failure, and of progress.</param>
internal sealed class ChildMonitor(string kept, int seed, Action<string> tell)
{
    private const int Batch = 250,
        Alike = 3;
    private const long MostGrowth = 1L << 30;

    // Time of processors, which other work on the machine does not change; and of the wall, for what waits.
    private static readonly TimeSpan mostTime = TimeSpan.FromSeconds(10),
        mostWait = TimeSpan.FromMinutes(2);

    private readonly Dictionary<string, int> seen = [];

    /// <summary>Fuzzes targets in turn until the time is over. Returns how many cases failed.</summary>
    public int Run(IReadOnlyList<Target> targets, TimeSpan time)
    {
        var (clock, failed, done) = (Stopwatch.StartNew(), 0, targets.ToDictionary(target => target, _ => 0));
        while (clock.Elapsed < time)
        {
            foreach (var target in targets.TakeWhile(_ => clock.Elapsed < time))
            {
                failed += Cases(target, done[target], Batch);
                done[target] += Batch;
            }
        }
        tell(
            $"{done.Values.Sum():N0} cases, {failed} failed: "
                + $"{string.Join(", ", done.Select(pair => $"{pair.Key.Name} {pair.Value}"))}"
        );
        return failed;
    }

    /// <summary>Runs cases of a target by their numbers. Returns how many failed.</summary>
    public int Cases(Target target, int from, int count)
    {
        var failed = 0;
        var next = from;
        while (next < from + count)
        {
            var (last, faults) = Child(target, next, from + count - next);
            foreach (var (number, fault) in faults)
                Keep(target, number, fault);
            failed += faults.Count;
            next = last + 1;
        }
        return failed;
    }

    /// <summary>Runs one child. Returns the last case that it began, and what failed.</summary>
    private (int Last, List<(int Case, string Fault)> Faults) Child(Target target, int from, int count)
    {
        var folder = Directory.CreateTempSubdirectory("memopt-fuzz").FullName;
        var info = new ProcessStartInfo(
            "dotnet",
            [typeof(ChildMonitor).Assembly.Location, "child", target.Name, Text(seed), Text(from), Text(count), folder]
        )
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = Directory.CreateDirectory(Path.Combine(folder, "cwd")).FullName,
        };
        info.Environment["NUGET_PACKAGES"] = Targets.Packages; // else they are looked for in HOME
        info.Environment["HOME"] = Directory.CreateDirectory(Path.Combine(folder, "home")).FullName;
        info.Environment["TMPDIR"] = Directory.CreateDirectory(Path.Combine(folder, "tmp")).FullName;
        info.Environment["DOTNET_EnableDiagnostics"] = "0"; // its socket would lie in TMPDIR
        info.Environment["DOTNET_TieredPGO"] = "0";
        var faults = new List<(int, string)>();
        var (current, since, used, memory, ended, error) = (
            from,
            Stopwatch.StartNew(),
            TimeSpan.MaxValue,
            0L,
            false,
            new Queue<string>()
        );
        using var process = Process.Start(info)!;
        process.OutputDataReceived += (_, line) =>
        {
            lock (faults)
            {
                if (line.Data is "done")
                    ended = true;
                else if (line.Data?.StartsWith("fault ", StringComparison.Ordinal) == true)
                    faults.Add((current, line.Data[6..]));
                else if (line.Data?.Split(' ') is ["case", var number, var bytes])
                    (current, memory, used, since) = (
                        int.Parse(number, CultureInfo.InvariantCulture),
                        long.Parse(bytes, CultureInfo.InvariantCulture),
                        TimeSpan.MaxValue,
                        Stopwatch.StartNew()
                    );
            }
        };
        process.ErrorDataReceived += (_, line) =>
        {
            lock (error)
            {
                if (line.Data is not null && error.Count < 30)
                    error.Enqueue(line.Data);
            }
        };
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        string? killed = null;
        while (!process.WaitForExit(100))
        {
            lock (faults)
            {
                process.Refresh();
                var (time, size) = Now(process);
                if (used > time)
                    used = time; // the first look at a case
                if (memory > 0 && time - used > mostTime || since.Elapsed > mostWait)
                    killed = $"more than {mostTime.TotalSeconds} s";
                else if (memory > 0 && size - memory > MostGrowth)
                    killed = "grew by more than 1 GB";
            }
            if (killed is null)
                continue;
            process.Kill(entireProcessTree: true);
            break;
        }
        process.WaitForExit();
        Directory.Delete(folder, recursive: true);
        if (killed is not null)
            faults.Add((current, killed));
        else if (!ended && !faults.Any(fault => fault.Item1 == current))
            faults.Add((current, $"the process ended with {process.ExitCode}: {string.Join(" | ", error)}"));
        return (ended ? from + count - 1 : current, faults);
    }

    private static (TimeSpan Time, long Size) Now(Process process)
    {
        try
        {
            return process.HasExited ? default : (process.TotalProcessorTime, process.WorkingSet64);
        }
        catch (Exception e) when (e is InvalidOperationException or System.ComponentModel.Win32Exception)
        {
            return default; // it ended meanwhile
        }
    }

    private void Keep(Target target, int number, string fault)
    {
        // Of one fault a few inputs are enough.
        var place = fault.Split(" | ").FirstOrDefault(line => line.Contains(" in ", StringComparison.Ordinal)) ?? fault;
        var name = $"{target.Name}-{seed}-{number}";
        seen[$"{target.Name} {place}"] = seen.GetValueOrDefault($"{target.Name} {place}") + 1;
        if (seen[$"{target.Name} {place}"] > Alike)
            return;
        tell($"{name}: {fault[..Math.Min(fault.Length, 1200)]}");
        Directory.CreateDirectory(kept);
        File.WriteAllBytes(Path.Combine(kept, $"{name}.input"), target.Input(seed, number));
        File.WriteAllText(Path.Combine(kept, $"{name}.txt"), fault);
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
