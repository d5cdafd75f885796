using System.Diagnostics;

namespace Memopt.Tracking.Tests;

/// <summary>Names, versions and aliases: on one machine with several processes, and on two through a storage
/// account.</summary>
public sealed class AdapterRegistryTests : IDisposable
{
    private const string rule = "min(eval_loss)";
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private AdapterRegistry Registry(string machine = "one", BlobArtifacts? account = null) =>
        new(Path.Combine(folder, machine), account);

    private static ArtifactLink Link(int content) => new("adapter", content.ToString("x64"), 100);

    private static Run Made(string id, double? loss = null, double accuracy = 0, string? data = null) =>
        new(
            new RunStart
            {
                Id = id,
                Experiment = "e",
                Config = "{}",
                Hashes = data is null
                    ? new Dictionary<string, string>()
                    : new Dictionary<string, string> { ["data.eval"] = data },
            },
            RunStatus.Finished,
            null,
            null
        )
        {
            Metrics = loss is null
                ? new Dictionary<string, MetricSummary>()
                : new Dictionary<string, MetricSummary>
                {
                    ["eval_loss"] = Last(loss.Value),
                    ["eval_accuracy"] = Last(accuracy),
                },
        };

    private static MetricSummary Last(double value) => new(1, value, 1, 0, value, 1, value, 1, value);

    [Fact]
    public void Best_alias_compares_versions_on_the_newest_evaluation_data()
    {
        var registry = Registry();
        RegisteredAdapter? Register(int content, double? loss, string? data)
        {
            var before = registry.Find("tone");
            registry.Register("tone", Link(content), Made($"r{content}", loss, data: data), rule);
            return registry.Find("tone")!.NotCompared(before) is null ? null : before;
        }
        int Best() => registry.Find("tone")!.Aliases["best"];

        Assert.Null(Register(1, 0.1, "easy"));
        Assert.Equal(1, Register(2, 0.7, "hard")!.BestVersion!.Number); // it says so once
        Assert.Equal(2, Best());
        Assert.Null(Register(3, 0.6, "hard"));
        Assert.Null(Register(4, null, "other")); // not judged: it changes nothing
        Assert.Equal(3, Best());
        Register(5, 0.2, "easy");
        Assert.Equal(1, Best());
        Register(6, 0.9, null);
        Assert.Equal(6, Best());
        Assert.Equal(
            ["easy", "hard", "hard", "other", "easy", null],
            registry.Find("tone")!.Versions.Select(version => version.Data)
        );
    }

    [Fact]
    public void Versions_registered_are_numbered_and_aliases_follow()
    {
        var registry = Registry();
        Assert.Empty(registry.List());
        registry.Register("tone", Link(1), Made("r1", 0.5), rule);
        registry.Register("tone", Link(2), Made("r2", 0.3), rule);
        registry.Register("tone", Link(3), Made("r3", double.NaN), rule);
        registry.Register("tone", Link(4), Made("r4"), rule);
        // registered already, with the metrics of that time
        Assert.Equal(2, registry.Register("tone", Link(2), Made("r2", 0.9), rule)!.Number);
        var tone = registry.Find("tone")!;
        Assert.Equal([1, 2, 3, 4], tone.Versions.Select(version => version.Number));
        Assert.Equal((4, 2), (tone.Aliases["latest"], tone.Aliases["best"]));
        Assert.Equal(0.3, tone.Versions[1].Metrics["eval_loss"]);

        registry.Alias("tone", "production", 1);
        registry.Alias("tone", "production", 3);
        Assert.Equal(3, registry.Resolve("tone@production").Version.Number);
        Assert.Equal(4, registry.Resolve("tone").Version.Number);
        Assert.Equal(Link(2).Hash, registry.Resolve("tone@best").Version.Hash);
        Assert.Equal(1, registry.Resolve("tone@1").Version.Number);
        registry.Alias("tone", "production", null);
        Assert.Equal([Link(1).Hash, Link(3).Hash, null], registry.Find("tone")!.History.Select(change => change.Hash));
        Assert.Contains(
            "1, 2, 3, 4, and best, latest",
            Assert.Throws<TrackingException>(() => registry.Resolve("tone@production")).Message
        );
        Assert.Contains(
            "has no alias",
            Assert.Throws<TrackingException>(() => registry.Alias("tone", "production", null)).Message
        );
        Assert.Contains(
            "set by itself",
            Assert.Throws<TrackingException>(() => registry.Alias("tone", "latest", 1)).Message
        );
        Assert.Contains(
            "not digits only",
            Assert.Throws<TrackingException>(() => registry.Alias("tone", "12", 1)).Message
        );
        Assert.Contains("neither a folder", Assert.Throws<TrackingException>(() => registry.Resolve("none@1")).Message);

        // Another measure from here on.
        registry.Register("tone", Link(5), Made("r5", 0.4, accuracy: 0.9), "max(eval_accuracy)");
        Assert.Equal(5, registry.Find("tone")!.Aliases["best"]);

        // Numbers are not given again; what was removed comes back only when asked for.
        registry.Remove("tone", 5);
        Assert.Equal(4, registry.Find("tone")!.Aliases["latest"]);
        Assert.Null(registry.Register("tone", Link(5), Made("r5", 0.4), rule));
        Assert.Equal(6, registry.Register("tone", Link(6), Made("r6"), rule)!.Number);
        Assert.Equal(5, registry.Register("tone", Link(5), Made("r5", 0.4), rule, again: true)!.Number);
        registry.Remove("tone", null);
        Assert.Null(registry.Find("tone"));
        Assert.Empty(registry.List());
        foreach (var wrong in new[] { "", "../x", "a/b", ".x" })
            Assert.Throws<TrackingException>(() => registry.Register(wrong, Link(1), null, rule));
        Assert.Throws<TrackingException>(() => registry.Register("tone", Link(1), null, "eval_loss"));
    }

    [Fact]
    public void Registry_written_by_several_processes_loses_nothing()
    {
        var processes = Enumerable.Range(0, 4).Select(number => Start("one", null, number, 25)).ToList();
        processes.ForEach(End);
        var versions = Registry().Find("tone")!.Versions;
        Assert.Equal(Enumerable.Range(1, 100), versions.Select(version => version.Number));
        Assert.Equal(100, versions.DistinctBy(version => version.Run).Count());
        Assert.Empty(Directory.EnumerateFiles(Path.Combine(folder, "one", "registry"), "*.staged"));
    }

    [Fact]
    public void Registry_written_by_several_machines_loses_nothing()
    {
        using var azurite = new Azurite();
        BlobArtifacts Account(string machine, string? connection = null) =>
            new(
                new LocalArtifacts(Path.Combine(folder, machine)),
                Azurite.Place with
                {
                    ConnectionString = connection ?? azurite.Connection,
                },
                attempts: 2
            );
        var processes = Enumerable
            .Range(0, 3)
            .Select(number => Start($"machine{number}", azurite.Connection, number, 8))
            .ToList();
        processes.ForEach(End);

        var seen = new List<IReadOnlyList<(int, string?)>>();
        foreach (var machine in new[] { "machine0", "machine1", "machine2", "new" })
        {
            var registry = Registry(machine, Account(machine));
            registry.Sync();
            seen.Add([.. registry.Find("tone")!.Versions.Select(version => (version.Number, version.Run))]);
        }
        Assert.Equal(Enumerable.Range(1, 24), seen[0].Select(version => version.Item1));
        Assert.Equal(24, seen[0].DistinctBy(version => version.Item2).Count());
        Assert.All(seen, other => Assert.Equal(seen[0], other));

        // Apart from each other, then together: both versions, the account's number stays; of an alias the later word,
        // with both in its history.
        var (a, b) = (Registry("machine0", Account("machine0")), Registry("machine1", Account("machine1")));
        a.Register("tone", Link(1000), Made("a"), rule);
        b.Register("tone", Link(2000), Made("b"), rule);
        a.Alias("tone", "production", 25);
        b.Alias("tone", "production", 25);
        a.Remove("tone", 1);
        a.Sync("tone");
        b.Sync("tone");
        a.Sync("tone");
        foreach (var registry in new[] { a, b })
        {
            var tone = registry.Find("tone")!;
            Assert.Equal(
                [(25, "a"), (26, "b")],
                tone.Versions.Where(version => version.Number > 24).Select(version => (version.Number, version.Run))
            );
            Assert.Equal((26, 2, 24 + 2 - 1), (tone.Aliases["production"], tone.History.Count, tone.Versions.Count));
        }

        // A machine that cannot reach the account goes on with what it knows.
        var away = Registry("machine0", Account("machine0", azurite.ConnectionAt(1)));
        Assert.True(Assert.Throws<TrackingException>(() => away.Sync()).IsTransient);
        Assert.Equal(26, away.Resolve("tone@production").Version.Number);
    }

    /// <summary>A process that registers some versions of "tone" one after another, and shares each when there is an
    /// account.</summary>
    private Process Start(string machine, string? connection, int number, int count) =>
        Process.Start(
            new ProcessStartInfo(
                "dotnet",
                [
                    "exec",
                    typeof(AdapterRegistryTests).Assembly.Location,
                    "register",
                    Path.Combine(folder, machine),
                    connection ?? "",
                    $"{number}",
                    $"{count}",
                ]
            )
            {
                RedirectStandardError = true,
            }
        )!;

    internal static int Register(string folder, string connection, int number, int count)
    {
        var registry = new AdapterRegistry(
            folder,
            connection.Length == 0
                ? null
                : new(new LocalArtifacts(folder), Azurite.Place with { ConnectionString = connection })
        );
        for (var i = 0; i < count; i++)
        {
            registry.Register("tone", Link((number * 100) + i + 1), Made($"p{number}-{i}"), rule);
            registry.Sync("tone");
        }
        return 0;
    }

    private static void End(Process process)
    {
        var wrong = process.StandardError.ReadToEnd();
        Wait.Ended(process);
        Assert.True(process.ExitCode == 0, wrong);
        process.Dispose();
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);
}
