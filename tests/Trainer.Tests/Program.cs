using System.Diagnostics;
using System.Reflection;
using Xunit.Abstractions;
using Xunit.Sdk;

namespace Memopt.Trainer.Tests;

/// <summary>Runs these tests on a machine that has .NET's runtime and no SDK: <c>dotnet Trainer.Tests.dll [gpu | part
/// of a name]</c>.</summary>
internal static class Program
{
    private static int Main(string[] args)
    {
        if (args is ["ranks", ..])
            return Distributed.RankProgram.Run(args);
        var assembly = new ReflectionAssemblyInfo(Assembly.GetExecutingAssembly());
        using var framework = new XunitTestFramework(new DiscardingSink());
        using var discoverer = framework.GetDiscoverer(assembly);
        using var discovery = new DiscoverySink();
        var options = new Options();
        discoverer.Find(includeSourceInformation: false, discovery, options);
        discovery.Done.WaitOne();
        var wanted = args.FirstOrDefault();
        var cases = discovery
            .Cases.Where(test =>
                wanted is null
                || test.DisplayName.Contains(wanted, StringComparison.OrdinalIgnoreCase)
                || test.Traits.TryGetValue("Device", out var devices) && devices.Contains(wanted)
            )
            .ToList();
        using var executor = framework.GetExecutor(Assembly.GetExecutingAssembly().GetName());
        using var report = new ReportingSink();
        executor.RunTests(cases, report, options);
        report.Done.WaitOne();
        Console.WriteLine($"{report.Passed} passed, {report.Failed} failed, {report.Skipped} skipped");
        return report.Failed > 0 || report.Passed == 0 ? 1 : 0;
    }

    private sealed class DiscardingSink : LongLivedMarshalByRefObject, IMessageSink
    {
        public bool OnMessage(IMessageSinkMessage message) => true;
    }

    private sealed class DiscoverySink : LongLivedMarshalByRefObject, IMessageSink, IDisposable
    {
        public List<ITestCase> Cases { get; } = [];

        public ManualResetEvent Done { get; } = new(false);

        public bool OnMessage(IMessageSinkMessage message)
        {
            if (message is ITestCaseDiscoveryMessage discovered)
                Cases.Add(discovered.TestCase);
            if (message is IDiscoveryCompleteMessage)
                Done.Set();
            return true;
        }

        public void Dispose() => Done.Dispose();
    }

    private sealed class ReportingSink : LongLivedMarshalByRefObject, IMessageSink, IDisposable
    {
        private readonly Stopwatch clock = Stopwatch.StartNew();

        public int Passed { get; private set; }

        public int Failed { get; private set; }

        public int Skipped { get; private set; }

        public ManualResetEvent Done { get; } = new(false);

        public bool OnMessage(IMessageSinkMessage message)
        {
            switch (message)
            {
                case ITestStarting starting:
                    // before it runs: a crash of native code says nothing itself
                    Console.WriteLine(starting.Test.DisplayName);
                    break;
                case ITestPassed:
                    Passed++;
                    break;
                case ITestSkipped skipped:
                    Skipped++;
                    Console.WriteLine($"skipped {skipped.Test.DisplayName}: {skipped.Reason}");
                    break;
                case ITestFailed failed:
                    Failed++;
                    Console.WriteLine(
                        $"FAILED {failed.Test.DisplayName} ({clock.Elapsed.TotalSeconds:F0} s)\n  "
                            + $"{string.Join("\n  ", failed.Messages)}\n"
                            + $"{string.Join('\n', failed.StackTraces.SelectMany(t => (t ?? "").Split('\n')).Take(6))}"
                    );
                    break;
                case ITestAssemblyFinished:
                    Done.Set();
                    break;
            }
            return true;
        }

        public void Dispose() => Done.Dispose();
    }

    /// <summary>xunit's defaults, but one test at a time: they share a device.</summary>
    private sealed class Options
        : LongLivedMarshalByRefObject,
            ITestFrameworkDiscoveryOptions,
            ITestFrameworkExecutionOptions
    {
        private readonly Dictionary<string, object?> values = new()
        {
            ["xunit.execution.DisableParallelization"] = true,
        };

        public TValue GetValue<TValue>(string name) =>
            values.TryGetValue(name, out var value) ? (TValue)value! : default!;

        public void SetValue<TValue>(string name, TValue value) => values[name] = value;
    }
}
