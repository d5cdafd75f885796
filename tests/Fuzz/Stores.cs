using System.Buffers;
using System.IO.Compression;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using Memopt.Tool.Server;
using Memopt.Tracking;
using Microsoft.AspNetCore.Builder;

namespace Memopt.Fuzz;

/// <summary>The readers of runs, artifacts and registries.</summary>
internal static class Stores
{
    private static readonly string[] calls =
    [
        "POST experiments/create",
        "POST experiments/search",
        "GET experiments/get?experiment_id=0",
        "POST experiments/update",
        "POST experiments/set-experiment-tag",
        "POST runs/create",
        "POST runs/search",
        "POST runs/update",
        "POST runs/delete",
        "POST runs/restore",
        "POST runs/set-tag",
        "POST runs/delete-tag",
        "POST runs/log-metric",
        "POST runs/log-parameter",
        "POST runs/log-batch",
        "POST runs/log-inputs",
        "POST runs/outputs",
        "POST runs/log-model",
        "GET metrics/get-history?run_id=r&metric_key=loss",
        "GET artifacts/list?run_id=r&path=..",
        "POST artifacts/presigned-upload-url",
    ];

    private static readonly string[] fields =
    [
        "run_id",
        "run_uuid",
        "experiment_id",
        "experiment_ids",
        "name",
        "key",
        "value",
        "timestamp",
        "step",
        "metrics",
        "params",
        "tags",
        "filter",
        "filter_string",
        "max_results",
        "order_by",
        "page_token",
        "status",
        "end_time",
        "start_time",
        "run_name",
        "user_id",
        "artifact_location",
        "datasets",
        "dataset",
        "digest",
        "source",
        "models",
        "model_id",
        "model_json",
        "path",
        "view_type",
        "run_view_type",
    ];

    private static readonly string[] runKeys =
    [
        "Id",
        "Experiment",
        "Started",
        "Config",
        "Overrides",
        "Hashes",
        "Name",
        "Value",
        "Status",
        "Ended",
        "Step",
        "Loss",
        "Kind",
        "Text",
        "Time",
        "Hash",
        "Bytes",
        "Path",
        "Format",
        "Runs",
        "Tags",
        "Host",
    ];

    public static IReadOnlyList<Target> All { get; } =
    [
        new(
            "filter",
            (random, seeds) =>
                random.Next(2) == 0
                    ? Targets.Bytes(new Grammar(random).Filter())
                    : Mutator.Change(
                        random,
                        seeds,
                        "metrics.loss",
                        " and ",
                        " or ",
                        " not ",
                        "(",
                        ")",
                        " = ",
                        " in ",
                        "order by ",
                        "'",
                        "`"
                    ),
            (input, folder) =>
            {
                var text = Encoding.UTF8.GetString(input);
                foreach (
                    var read in new Action[]
                    {
                        () => FilterParser.Column(text),
                        () => FilterParser.Keys(text),
                        () => Filter.Place.Parse(text),
                        () => Asked(folder).Find(new RunQuery { Filter = text }),
                    }
                )
                    Attempt(read);
            }
        ),
        new(
            "spool",
            Lines,
            (input, folder) =>
            {
                var lines = new ArrayBufferWriter<byte>();
                foreach (var range in input.AsSpan().Split((byte)'\n'))
                {
                    var line = input.AsSpan(range);
                    var space = line.IndexOf((byte)' ');
                    if (space > 0 && line[0] != '!')
                        SpoolLine.Write(lines, Encoding.UTF8.GetString(line[..space]), 0, line[(space + 1)..]);
                    else
                        lines.Write(Summed(line));
                }
                Targets.Put(folder, "store/spool/open/r1.jsonl", lines.WrittenSpan.ToArray());
                Ask(Path.Combine(folder, "store"));
            }
        ),
        Targets.Plain(
            "spool-raw",
            (input, folder) =>
            {
                Targets.Put(folder, "store/spool/open/r1.jsonl", input);
                Targets.Put(folder, "store/spool/closed/r2.jsonl.gz", input);
                Ask(Path.Combine(folder, "store"));
            },
            "begin",
            "step",
            "event",
            "\n"
        ),
        Targets.Plain(
            "runs-db",
            (input, folder) =>
            {
                Targets.Put(folder, "store/runs.db", input);
                Ask(Path.Combine(folder, "store"));
            }
        ),
        Targets.Json(
            "experiments",
            ["Id", "Name", "Created", "Updated", "Deleted", "Tags", "id", "name", "tags"],
            (input, folder) =>
            {
                Targets.Put(folder, "store/experiments.json", input);
                using var store = new LiteRunStore(Path.Combine(folder, "store"));
                store.Experiments.Read();
                store.Experiments.Check(repair: true);
            }
        ),
        new(
            "runs-import",
            Archive,
            (input, folder) =>
            {
                using var store = new LiteRunStore(Path.Combine(folder, "store"));
                store.Import(
                    Targets.Put(folder, "in/runs.zip", input),
                    new LocalArtifacts(Path.Combine(folder, "artifacts"))
                );
                store.Find(new RunQuery());
            }
        ),
        Targets.Json(
            "artifact-manifest",
            ["path", "hash", "bytes", "Path", "Hash", "Bytes"],
            (input, folder) =>
            {
                var artifacts = new LocalArtifacts(Path.Combine(folder, "artifacts"));
                var empty = Convert.ToHexStringLower(SHA256.HashData([]));
                Targets.Put(folder, $"artifacts/objects/{empty[..2]}/{empty}", []);
                var hash = Convert.ToHexStringLower(SHA256.HashData(input));
                Targets.Put(folder, $"artifacts/manifests/{hash}", input);
                Targets.Put(folder, $"artifacts/manifests/{hash}.json", input);
                artifacts.Files(hash);
                artifacts.Verify(hash);
                artifacts.Get(hash, Path.Combine(folder, "into"));
            }
        ),
        Targets.Json(
            "registry",
            [
                "name",
                "all",
                "history",
                "number",
                "hash",
                "bytes",
                "run",
                "created",
                "metrics",
                "best",
                "removed",
                "time",
                "alias",
                "host",
                "min:eval_loss",
            ],
            (input, folder) =>
            {
                Targets.Put(folder, "registry/a.json", input);
                var registry = new AdapterRegistry(folder);
                foreach (
                    var read in new Action[]
                    {
                        () => registry.List(),
                        () => _ = registry.Find("a")?.Aliases.Count,
                        () => registry.Resolve("a@best"),
                        () => registry.Alias("a", "prod", 1),
                    }
                )
                    Attempt(read);
            }
        ),
        new(
            "mlflow",
            (random, seeds) =>
                random.Next(2) == 0
                    ? Targets.Bytes($"{calls[random.Next(calls.Length)]}\n{new Grammar(random).Object(fields, 4)}")
                    : Mutator.Change(random, seeds, [.. fields.Select(field => $"\"{field}\":"), "\"r\"", .. calls]),
            Post
        ),
    ];

    /// <summary>A line with its sum and without the shape behind it.</summary>
    private static byte[] Summed(ReadOnlySpan<byte> line) =>
        [.. Targets.Bytes($"{System.IO.Hashing.Crc32.HashToUInt32(line):x8} "), .. line, (byte)'\n'];

    private static void Attempt(Action read)
    {
        try
        {
            read();
        }
        catch (TrackingException)
        {
            // refused as it should be; the next reader may take it
        }
    }

    private static LiteRunStore? asked;

    /// <summary>A store with a run, made once.</summary>
    private static LiteRunStore Asked(string folder)
    {
        if (asked is not null)
            return asked;
        return asked = new(Path.Combine(folder, "../own/asked"));
    }

    private static void Ask(string folder)
    {
        using var store = new LiteRunStore(folder);
        foreach (
            var run in store
                .Find(new RunQuery { Filter = "metrics.loss > 0 or status = 'finished' order by metrics.loss" })
                .Runs.Concat(store.Find(new RunQuery()).Runs)
        )
        {
            store.Get(run.Start.Id);
            store.Points(run.Start.Id, "loss");
            store.Steps(run.Start.Id);
            store.Events(run.Start.Id);
        }
        store.Check(repair: false);
    }

    private static byte[] Lines(Random random, IReadOnlyList<byte[]> seeds)
    {
        string[] kinds = ["begin", "step", "eval", "event", "artifact", "param", "tag", "end", "log", "!x"];
        if (random.Next(2) == 0)
            return Mutator.Change(
                random,
                seeds,
                [.. runKeys.Select(key => $"\"{key}\":"), .. kinds.Select(kind => $"\n{kind} ")]
            );
        var start = Encoding.UTF8.GetString(seeds[0]).Split('\n')[0];
        return Targets.Bytes(
            start
                + "\n"
                + string.Join(
                    '\n',
                    Enumerable
                        .Range(0, random.Next(6))
                        .Select(_ => $"{kinds[random.Next(kinds.Length)]} {new Grammar(random).Object(runKeys, 3)}")
                )
        );
    }

    /// <summary>An archive with one entry's name or content changed; or its bytes.</summary>
    private static byte[] Archive(Random random, IReadOnlyList<byte[]> seeds)
    {
        if (random.Next(4) == 0)
            return Mutator.Change(random, seeds);
        using var from = new ZipArchive(new MemoryStream(seeds[0]));
        using var made = new MemoryStream();
        using (var to = new ZipArchive(made, ZipArchiveMode.Create, leaveOpen: true))
        {
            var changed = random.Next(from.Entries.Count);
            foreach (var (index, entry) in from.Entries.Index())
            {
                using var content = new MemoryStream();
                using (var stream = entry.Open())
                    stream.CopyTo(content);
                var (name, bytes, kind) = (entry.FullName, content.ToArray(), index == changed ? random.Next(4) : 4);
                if (kind == 0)
                    name = Encoding.UTF8.GetString(
                        Mutator.Change(
                            random,
                            [Targets.Bytes(name)],
                            "../",
                            "artifacts/",
                            "spool/",
                            "/",
                            "..\\",
                            "logs/"
                        )
                    );
                if (kind is 1 or 2)
                    bytes = Mutator.Change(random, [bytes], [.. runKeys]);
                if (kind == 3)
                    name = "artifacts/" + new string('0', 64) + "/../../../outside";
                if (name.Length is 0 or > 60_000)
                    name = "x";
                var target = to.CreateEntry(name, CompressionLevel.Fastest);
                target.LastWriteTime = new(2024, 1, 1, 0, 0, 0, TimeSpan.Zero);
                using var into = target.Open();
                into.Write(bytes);
            }
        }
        return made.ToArray();
    }

    private static Uri? server;
    private static readonly HttpClient client = new();

    private static void Post(byte[] input, string folder)
    {
        server ??= Serve(Path.GetFullPath(Path.Combine(folder, "../own")));
        var end = Array.IndexOf(input, (byte)'\n');
        var call = Encoding.UTF8.GetString(input, 0, Math.Max(0, end)).Split(' ', 2);
        if (
            call.Length < 2
            || !Uri.TryCreate(server, $"api/2.0/mlflow/{call[1]}", out var url)
            || !url.AbsoluteUri.StartsWith(server.AbsoluteUri, StringComparison.Ordinal)
            || url.AbsoluteUri.Length > 8000
        )
            return;
        using var request = new HttpRequestMessage(call[0] == "GET" ? HttpMethod.Get : HttpMethod.Post, url);
        if (call[0] != "GET")
            request.Content = new ByteArrayContent(input[(end + 1)..])
            {
                Headers = { ContentType = new("application/json") },
            };
        using var answer = client.Send(request);
        if ((int)answer.StatusCode >= 500)
            throw new InvalidOperationException(
                $"{call[1]} answers {(int)answer.StatusCode}: "
                    + $"{new StreamReader(answer.Content.ReadAsStream()).ReadToEnd()}"
            );
    }

    private static Uri Serve(string folder)
    {
        var store = new LiteRunStore(Path.Combine(folder, "store"));
        using (
            var run = store.Begin(
                new RunStart
                {
                    Id = "r",
                    Experiment = "Default",
                    Started = DateTimeOffset.UnixEpoch,
                    Config = "{}",
                }
            )
        )
            run.Append(new MetricRow(1, new Dictionary<string, double> { ["loss"] = 1 }));
        var app = UiServer.Build(
            new()
            {
                Store = store,
                Artifacts = new LocalArtifacts(Path.Combine(folder, "artifacts")),
                Address = IPAddress.Loopback,
                Port = 0,
            }
        );
        app.StartAsync().GetAwaiter().GetResult();
        return new(app.Urls.First() + "/");
    }
}
