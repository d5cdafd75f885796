using System.Diagnostics;
using System.Text.Json.Nodes;

namespace Memopt.Tracking.Tests;

/// <summary>Event files, read by a Python program that knows nothing of ours but the published formats.</summary>
public sealed class TensorBoardTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;
    private readonly List<string> told = [];

    private string Board => Path.Combine(folder, "board");

    /// <summary>RFC 3720, appendix B.4.</summary>
    [Theory]
    [InlineData("0000000000000000000000000000000000000000000000000000000000000000", 0x8a9136aau)]
    [InlineData("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", 0x62a8ab43u)]
    [InlineData("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", 0x46dd794eu)]
    [InlineData("1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100", 0x113fdb5cu)]
    [InlineData(
        "01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000",
        0xd9963a56u
    )]
    public void Checksum_equals_that_of_the_standard(string hex, uint expected)
    {
        Assert.Equal(expected, EventFile.Crc(Convert.FromHexString(hex)));
        Assert.Equal(expected.ToString(), Python("crc", hex).Trim());
    }

    [Fact]
    public void Scalars_of_a_running_run_equal_those_of_the_store()
    {
        using var store = new LiteRunStore(folder);
        using var run = Begin(store, 0);
        run.Append([Row(1), Row(2, double.NaN)]);
        run.Append([Row(300, double.PositiveInfinity)]);
        run.Append(new EvalRow(300, new Dictionary<string, double> { ["loss"] = 0.125, ["accuracy"] = 1.0 / 3 }));
        run.Append(
            new MetricRow(
                -7,
                new Dictionary<string, double> { ["own/ü"] = 4.5 },
                DateTimeOffset.UnixEpoch.AddSeconds(1.5)
            )
        );

        var events = Events(); // nothing was closed or flushed
        Assert.Equal(("brain.Event:2", 0L), ((string?)events[0]["version"], (long)events[0]["step"]!));
        Assert.Equal((1, 1L), ((int)events[1]["status"]!, (long)events[1]["step"]!));
        var written = Values(events);
        var metrics = store.Get("r1")!.Metrics.Keys.ToList();
        Assert.Equal(10, metrics.Count);
        foreach (var metric in metrics)
        {
            var tag = metric.StartsWith("eval_", StringComparison.Ordinal) ? "eval/" + metric[5..] : metric;
            var points = store.Points("r1", metric);
            Assert.Equal(
                points.Select(point => (point.Step, (float)point.Value)),
                written[tag].Select(point => (point.Step, point.Value))
            );
            Assert.All(
                points.Zip(written[tag]),
                pair => Assert.InRange(pair.Second.Wall - pair.First.Time / 1e3, -1, 1)
            );
        }
        Assert.Equal(metrics.Count, written.Count);
        Assert.Equal(1.5, written["own/ü"][0].Wall);
        Assert.Empty(told);
    }

    [Fact]
    public void Run_resumed_begins_a_later_file_that_purges_the_repeated_steps()
    {
        using var store = new LiteRunStore(folder);
        var clock = new ManualClock(DateTimeOffset.UnixEpoch.AddSeconds(2_000_000_000));
        using (var run = Begin(store, 0, clock))
            run.Append([.. Enumerable.Range(1, 5).Select(step => Row(step))]);
        clock.Now -= TimeSpan.FromHours(1);
        using (var run = Begin(store, 3, clock))
            run.Append([Row(4, 7), Row(5, 8)]);

        var events = Events();
        var files = events.Select(one => (string)one["file"]!).Distinct().ToList();
        Assert.Equal(
            [
                $"events.out.tfevents.2000000000.{Environment.MachineName}",
                $"events.out.tfevents.2000000001.{Environment.MachineName}",
            ],
            files
        );
        Assert.Equal(
            4L,
            (long)events.Single(one => (string)one["file"]! == files[1] && one["status"] is not null)["step"]!
        );
        // TensorBoard's rule: a start lets go of all that came before it from its step on.
        var kept = new List<(long Step, float Loss)>();
        foreach (var one in events)
        {
            if (one["status"] is not null)
                kept.RemoveAll(point => point.Step >= (long)one["step"]!);
            if (one["values"]?["loss"] is { } loss)
                kept.Add(((long)one["step"]!, (float)loss));
        }
        Assert.Equal(store.Points("r1", "loss").Select(point => (point.Step, (float)point.Value)), kept);
    }

    [Fact]
    public void Event_file_with_a_torn_record_keeps_the_records_before_it()
    {
        using (var run = Begin(new LiteRunStore(folder), 0))
            run.Append([Row(1), Row(2)]);
        var file = Directory.EnumerateFiles(Path.Combine(Board, "r1")).Single();
        var whole = File.ReadAllBytes(file);
        for (var cut = 1; cut < 60; cut += 7)
        {
            File.WriteAllBytes(file, whole[..^cut]);
            var events = Events();
            Assert.Equal([(1L, 1.5f)], Values(events)["loss"].Select(point => (point.Step, point.Value)));
            Assert.True((bool?)events[^1]["torn"]);
        }
    }

    [Fact]
    public void Event_file_that_cannot_be_written_is_reported_once_and_written_later()
    {
        File.WriteAllText(Board, "no folder");
        using var store = new LiteRunStore(folder);
        using var run = Begin(store, 0);
        run.Append([Row(1)]);
        run.Append([Row(2)]);
        Assert.Contains("The training goes on", Assert.Single(told));
        Assert.Equal(2, store.Points("r1", "loss").Count);
        File.Delete(Board);
        run.Append([Row(3)]);
        Assert.Contains("written again", told[1]);
        Assert.Equal([1L, 2, 3], Values(Events())["loss"].Select(point => point.Step));
    }

    [Fact]
    public void Writer_without_a_TensorBoard_folder_is_returned_unwrapped()
    {
        using var store = new LiteRunStore(folder);
        using var run = store.Begin(
            new RunStart
            {
                Id = "r1",
                Experiment = "e",
                Config = "{}",
            }
        );
        Assert.Same(run, run.WithTensorBoard(null, "r1", 0, told.Add));
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);

    private IRunWriter Begin(LiteRunStore store, int fromStep, TimeProvider? clock = null) =>
        store
            .Begin(
                new RunStart
                {
                    Id = "r1",
                    Experiment = "e",
                    Config = "{}",
                },
                fromStep
            )
            .WithTensorBoard(Board, "r1", fromStep, told.Add, clock);

    private static StepRow Row(int step, double loss = 1.5) =>
        new(step, loss, 1e-3, 0.1, 1L << 40, 3.25, 12_345_678_901, 0.5);

    private List<JsonNode> Events() =>
        [
            .. Python(Path.Combine(Board, "r1"))
                .Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => JsonNode.Parse(line.Replace("NaN", "\"NaN\"").Replace("Infinity", "\"Infinity\""))!),
        ];

    private static Dictionary<string, List<(long Step, float Value, double Wall)>> Values(List<JsonNode> events) =>
        events
            .Where(one => one["values"] is not null)
            .SelectMany(one =>
                one["values"]!
                    .AsObject()
                    .Select(pair => (pair.Key, Point: ((long)one["step"]!, Number(pair.Value!), (double)one["wall"]!)))
            )
            .GroupBy(pair => pair.Key, pair => pair.Point)
            .ToDictionary(tag => tag.Key, tag => tag.ToList());

    private static float Number(JsonNode value) =>
        value.GetValueKind() == System.Text.Json.JsonValueKind.String
            ? float.Parse((string)value!, System.Globalization.CultureInfo.InvariantCulture)
            : (float)(double)value;

    private static string Python(params string[] arguments)
    {
        using var process = Process.Start(
            new ProcessStartInfo(
                "python3",
                [Path.Combine(AppContext.BaseDirectory, "Fixtures", "read_events.py"), .. arguments]
            )
            {
                RedirectStandardOutput = true,
            }
        )!;
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        return output;
    }
}
