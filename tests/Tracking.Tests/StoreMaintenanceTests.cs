using System.IO.Compression;
using Microsoft.Win32.SafeHandles;

namespace Memopt.Tracking.Tests;

/// <summary>Stores that are old, damaged, full, carried about.</summary>
public sealed class StoreMaintenanceTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private string At(string name) => Path.Combine(folder, name);

    private static RunStart Start(string id, string experiment = "e") =>
        new()
        {
            Id = id,
            Experiment = experiment,
            Started = DateTimeOffset.UnixEpoch,
            Config = "{}",
        };

    private static StepRow Row(int step) => new(step, 1.0 / step, 1e-3, 0.1, 5, 3.25, 4, 0.5);

    private LiteRunStore Filled(string name, int steps = 1200)
    {
        var store = new LiteRunStore(At(name));
        foreach (var id in new[] { "one", "two" })
        {
            using var run = store.Begin(Start(id));
            run.Append([.. Enumerable.Range(1, steps).Select(Row)]);
            run.Append(new RunEvent(DateTimeOffset.UnixEpoch, 3, "oom", "micro-batch 4 -> 2"));
            run.Tag("k", "v");
            run.End(new Outcome(RunStatus.Finished) { Ended = DateTimeOffset.UnixEpoch });
        }
        store.Find(new RunQuery());
        return store;
    }

    private static void Whole(LiteRunStore store, int steps = 1200)
    {
        foreach (var id in new[] { "one", "two" })
        {
            Assert.Equal(Enumerable.Range(1, steps).Select(Row), store.Steps(id));
            Assert.Single(store.Events(id));
            Assert.Equal(("v", RunStatus.Finished), (store.Get(id)!.Tags["k"], store.Get(id)!.Status));
        }
    }

    [Fact]
    public void Store_of_the_first_layout_opens_and_keeps_its_runs()
    {
        // Made by the version before: four runs, of which one was resumed, one's spool was lost, and one had not been
        // taken in.
        ZipFile.ExtractToDirectory(Path.Combine(AppContext.BaseDirectory, "Fixtures", "store-0.zip"), At("old"));
        static StepRow Old(int step) => new(step, 2.0 / step, 1e-3, 0.25, 100 + step, 1000.5, 1L << 30, 0.125);
        using var store = new LiteRunStore(At("old"));
        Assert.Equal(
            ["uningested", "lost-spool", "resumed", "finished"],
            store.Find(new RunQuery()).Runs.Select(run => run.Start.Id)
        );
        Assert.Equal(Enumerable.Range(1, 700).Select(Old), store.Steps("finished"));
        Assert.Equal(Enumerable.Range(1, 50).Select(Old), store.Steps("resumed"));
        Assert.Equal(Enumerable.Range(1, 20).Select(Old), store.Steps("lost-spool"));
        Assert.Equal(2, store.Steps("uningested").Count);
        var finished = store.Get("finished")!;
        Assert.Equal(
            (RunStatus.Finished, 0.75, "16", 90L, "nlp"),
            (
                finished.Status,
                finished.Eval["accuracy"],
                finished.Params["adapter.rank"],
                finished.Ledger[0].Measured!.Value,
                finished.Tags["team"]
            )
        );
        Assert.Equal("/x", Assert.Single(finished.Artifacts).Path);
        Assert.Equal((RunStatus.Failed, "why"), (store.Get("lost-spool")!.Status, store.Get("lost-spool")!.Reason));
        Assert.Equal(new DateTimeOffset(2026, 11, 2, 10, 0, 0, TimeSpan.Zero), store.Get("resumed")!.Start.Started);
        Assert.True(File.Exists(At("old/runs.db.layout-0")));
        Assert.Empty(store.Check(repair: false));
    }

    [Fact]
    public void Store_of_a_later_version_is_refused_unchanged()
    {
        Filled("s", 1).Dispose();
        Filled("other", 1).Dispose();
        using (var db = new LiteDB.LiteDatabase(At("s/runs.db")))
            db.UserVersion = RunDatabase.Schema + 1;
        using var store = new LiteRunStore(At("s"));
        var before = Content();
        foreach (
            var ask in new Action[]
            {
                () => store.Find(new RunQuery()),
                () => store.Check(repair: true),
                () => store.Import(At("other")),
            }
        )
        {
            var fault = Assert.Throws<TrackingException>(ask);
            Assert.Contains("newer memopt", fault.Message);
            Assert.StartsWith("update the tool", fault.Next);
        }
        Assert.Equal(before, Content());

        // One that cannot be written is not read either: what its numbers mean is not known. A directory in the lock's
        // place keeps even root from it.
        File.Delete(At("s/runs.lock"));
        Directory.CreateDirectory(At("s/runs.lock"));
        Assert.Contains("newer memopt", Assert.Throws<TrackingException>(() => store.Find(new RunQuery())).Message);

        string Content() =>
            string.Join(
                '\n',
                Directory
                    .EnumerateFiles(At("s"), "*", SearchOption.AllDirectories)
                    .Order()
                    .Select(file =>
                        $"{file} "
                        + $"{Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(file)))}"
                    )
            );
    }

    [Fact]
    public void Doctor_rebuilds_a_damaged_spool_from_the_database()
    {
        using var store = Filled("s");
        Assert.Empty(store.Check(repair: false));
        var sealedFile = At("s/sealed/one.jsonl.gz");
        using (var stream = File.OpenWrite(sealedFile))
            stream.SetLength(stream.Length / 2);
        Assert.False(Assert.Single(store.Check(repair: false)).Repaired);
        Assert.True(Assert.Single(store.Check(repair: true)).Repaired);
        Whole(store);
        Assert.Empty(store.Check(repair: false));
        // And it is whole on its own: the database is made again from it.
        File.Delete(At("s/runs.db"));
        Whole(store);
    }

    [Fact]
    public void Doctor_rebuilds_a_damaged_database_from_the_spools()
    {
        using var store = Filled("s");
        using (var db = new LiteDB.LiteDatabase(At("s/runs.db")))
            db.GetCollection("points").Delete(db.GetCollection("points").FindAll().First()["_id"]);
        Assert.Contains("points of", Assert.Single(store.Check(repair: true)).Text);
        Whole(store);
        Assert.Empty(store.Check(repair: false));
    }

    [Fact]
    public void Doctor_restores_a_run_whose_id_was_damaged_in_the_database()
    {
        using var store = Filled("s");
        using (var db = new LiteDB.LiteDatabase(At("s/runs.db")))
        {
            var runs = db.GetCollection("runs");
            var head = runs.FindAll().First(run => run["id"] == "one");
            head["id"] = "onf";
            runs.Update(head);
        }
        Assert.Contains("one is not in it", Assert.Single(store.Check(repair: false)).Text);
        store.Check(repair: true);
        Whole(store);
        Assert.Equal(2, store.Find(new RunQuery()).Runs.Count);
    }

    [Theory]
    [InlineData("began and ended with")]
    [InlineData("other points of")]
    public void Doctor_detects_a_value_that_changed_in_the_database(string says)
    {
        using var store = Filled("s");
        using (var db = new LiteDB.LiteDatabase(At("s/runs.db")))
        {
            var (collection, field) = says.StartsWith("other", StringComparison.Ordinal)
                ? ("points", "bin")
                : ("runs", "head");
            var documents = db.GetCollection(collection);
            var document = documents.FindAll().First();
            var bytes = document[field].AsBinary;
            if (field == "head")
            {
                Assert.Equal((byte)'e', bytes[2]); // format, length, experiment
                bytes[2]++;
                document[field] = bytes;
            }
            else
            {
                document[field] = Chunk.Pack([
                    .. Chunk
                        .Unpack(bytes)
                        .Select((point, i) => i == 136 ? point with { Value = point.Value * 1.001 } : point),
                ]);
            }
            documents.Update(document);
        }
        Assert.Contains(says, Assert.Single(store.Check(repair: true)).Text);
        Whole(store);
        Assert.Empty(store.Check(repair: false));
    }

    [Fact]
    public void Doctor_on_a_database_with_random_bytes_loses_no_run()
    {
        using var store = Filled("s");
        var random = new Random(7);
        for (var round = 0; round < 12; round++)
        {
            using (var stream = File.OpenWrite(At("s/runs.db")))
            {
                for (var i = 0; i < 200; i++)
                {
                    stream.Position = random.NextInt64(stream.Length);
                    stream.WriteByte((byte)random.Next(256));
                }
            }
            store.Check(repair: true);
            Whole(store);
        }
    }

    [Fact]
    public void Export_to_one_file_carries_runs_and_artifacts_to_another_store()
    {
        using var from = Filled("from");
        var artifacts = new LocalArtifacts(At("artifacts"));
        Directory.CreateDirectory(At("adapter"));
        File.WriteAllText(At("adapter/a.txt"), "content");
        var link = artifacts.Put("adapter", At("adapter"));
        using (var run = from.Begin(Start("three")))
        {
            run.Append([Row(1)]);
            run.Link(link);
            Assert.Equal(3, from.Export(At("early.zip"))); // while it is being written
            run.Append([Row(2)]);
            run.End(new Outcome(RunStatus.Finished));
        }
        Assert.Equal(3, from.Export(At("all.zip"), artifacts: artifacts));
        Assert.Equal(1, from.Export(At("some.zip"), ["two"]));

        using var to = new LiteRunStore(At("to"));
        var there = new LocalArtifacts(At("there"));
        Assert.Equal(["two"], to.Import(At("some.zip")).Runs);
        Assert.Equal(2, to.Import(At("early.zip")).Runs.Count);
        Assert.Single(to.Steps("three"));
        Assert.Equal(RunStatus.Interrupted, to.Get("three")!.Status);
        var rest = to.Import(At("all.zip"), there);
        Assert.Equal(["three"], rest.Runs);
        Assert.Equal((2, 1), (rest.Known, rest.Artifacts));
        Assert.Equal(2, to.Steps("three").Count);
        Assert.Equal([link.Hash], there.List());
        Whole(to);
        Assert.Empty(to.Import(At("all.zip"), there).Runs);
        Assert.Empty(to.Import(At("from")).Runs); // a folder does as well
        Whole(to);
        File.WriteAllText(At("no.zip"), "text");
        // one above the stores
        Assert.Contains("no folder of a run store", Assert.Throws<TrackingException>(() => to.Import(folder)).Message);
        Assert.Contains("no archive", Assert.Throws<TrackingException>(() => to.Import(At("no.zip"))).Message);
    }

    [Fact]
    public void Import_brings_experiments_and_keeps_existing_ones()
    {
        using var from = new LiteRunStore(At("from"));
        from.Begin(Start("one", "words")).Dispose();
        from.Experiments.Change(
            from.Experiments.Of("words").Id,
            words =>
                words with
                {
                    Name = "Words of today",
                    Tags = new Dictionary<string, string> { ["team"] = "nlp", ["kept"] = "no" },
                }
        );
        var empty = from.Experiments.Create("Empty", new Dictionary<string, string>())!;
        from.Experiments.Change(empty.Id, experiment => experiment with { Deleted = true });
        Assert.Equal(1, from.Export(At("all.zip")));
        Assert.Equal(1, from.Export(At("some.zip"), ["one"]));

        using var bare = new LiteRunStore(At("bare"));
        bare.Import(At("all.zip"));
        Assert.Equal(from.Experiments.All().Select(Said), bare.Experiments.All().Select(Said));
        using var parcel = new LiteRunStore(At("parcel"));
        parcel.Import(At("some.zip"));
        Assert.DoesNotContain(parcel.Experiments.All(), experiment => experiment.Name == "Empty");

        using var to = new LiteRunStore(At("to"));
        var mine = to.Experiments.Create("Words of today", new Dictionary<string, string>())!;
        to.Begin(Start("two", "words")).Dispose();
        to.Experiments.Change(
            to.Experiments.Of("words").Id,
            words => words with { Tags = new Dictionary<string, string> { ["kept"] = "yes" } }
        );
        var before = to.Experiments.All();
        to.Import(At("all.zip"));
        to.Import(At("all.zip"));
        to.Import(At("from"));
        var after = to.Experiments.All();
        Assert.Equal(["Default", "Words of today", "words", "Empty"], after.Select(experiment => experiment.Name));
        Assert.Equal(before.Select(experiment => experiment.Id), after.Take(3).Select(experiment => experiment.Id));
        Assert.Equal("nlp", to.Experiments.Of("words").Tags["team"]);
        Assert.Equal("yes", to.Experiments.Of("words").Tags["kept"]);
        Assert.Equal(after.Count, after.Select(experiment => experiment.Id).Distinct().Count());
        Assert.Equal(mine.Id, to.Experiments.Of("Words of today").Id);

        static string Said(Experiment experiment) =>
            $"{experiment.Id} {experiment.Name} {experiment.Key} {experiment.Deleted} "
            + $"{string.Join(",", experiment.Tags.OrderBy(tag => tag.Key).Select(tag => tag.Key + "=" + tag.Value))}";
    }

    [Fact]
    public void Writer_killed_before_its_first_line_leaves_a_sound_store()
    {
        using var store = Filled("s");
        File.WriteAllText(At("s/spool/one.1.jsonl"), "");
        File.WriteAllText(At("s/spool/three.jsonl"), "");
        Whole(store);
        Assert.Empty(Directory.EnumerateFiles(At("s/spool"), "*.jsonl"));
        Assert.Empty(store.Check(repair: false));
        store.Begin(Start("three")).Dispose();
        Assert.Equal(RunStatus.Interrupted, store.Get("three")!.Status);
    }

    [Fact]
    public void Run_removed_stays_removed()
    {
        using var store = Filled("s");
        store.Remove("one");
        Assert.Null(store.Get("one"));
        Assert.Empty(store.Points("one", "loss"));
        File.Delete(At("s/runs.db"));
        Assert.Equal(["two"], store.Find(new RunQuery()).Runs.Select(run => run.Start.Id));
        using var alive = store.Begin(Start("three"));
        Assert.Contains("being written", Assert.Throws<TrackingException>(() => store.Remove("three")).Message);
    }

    /// <summary>A disk that is full from some byte on, until there is room again; it takes what fits of the write that
    /// fails.</summary>
    private sealed class FullDisk
    {
        public long Room { get; set; } = long.MaxValue;

        public void Write(SafeFileHandle file, ReadOnlyMemory<byte> bytes, long at)
        {
            if (at + bytes.Length <= Room)
            {
                RandomAccess.Write(file, bytes.Span, at);
                return;
            }
            if (at < Room)
                RandomAccess.Write(file, bytes.Span[..(int)(Room - at)], at);
            throw new IOException("No space left on device");
        }
    }

    [Fact]
    public void Full_disk_is_reported_and_nothing_is_lost_once_there_is_room()
    {
        var disk = new FullDisk();
        using var store = new LiteRunStore(At("s")) { Disk = disk.Write };
        using (var run = store.Begin(Start("one")))
        {
            run.Append([Row(1)]);
            disk.Room = new FileInfo(At("s/spool/one.jsonl")).Length + 50; // in the midst of the next line
            for (var step = 2; step <= 5; step++)
            {
                var full = Assert.Throws<TrackingException>(() => run.Append([Row(step)]));
                Assert.Contains("No space left", full.Message);
                Assert.Contains("wait in memory", full.Message);
                Assert.Single(store.Steps("one"));
            }
            disk.Room = long.MaxValue;
            run.Append([Row(6)]);
            Assert.Equal([1, 2, 3, 4, 5, 6], store.Steps("one").Select(row => row.Step));
        }
        Assert.Empty(store.Check(repair: false));
    }

    [Fact]
    public void Best_effort_writer_on_a_full_disk_lets_the_training_continue()
    {
        var (disk, said) = (new FullDisk(), new List<string>());
        using var store = new LiteRunStore(At("s")) { Disk = disk.Write };
        using (var run = store.BeginBestEffort(Start("one"), 0, said.Add))
        {
            run.Append([Row(1)]);
            Assert.Empty(said);
            disk.Room = 0;
            run.Append([Row(2)]);
            run.Append(new EvalRow(2, new Dictionary<string, double> { ["loss"] = 1 }));
            Assert.Contains("No space left", Assert.Single(said)); // once, not each step
            disk.Room = long.MaxValue;
            run.Append([Row(3)]);
            Assert.Contains("recorded again", said[1]);
        }
        Assert.Equal(3, store.Steps("one").Count);
        Assert.Single(store.Evals("one"));
    }

    [Fact]
    public void Run_that_cannot_begin_in_its_store_is_recorded_elsewhere_and_can_be_imported()
    {
        File.WriteAllText(At("s"), "a file where the store's folder should be");
        var said = new List<string>();
        using var store = new LiteRunStore(At("s"));
        using (var run = store.BeginBestEffort(Start("one"), 0, said.Add, At("instead")))
        {
            run.Append([Row(1)]);
            run.End(new Outcome(RunStatus.Finished));
        }
        Assert.Contains("runs import " + At("instead"), Assert.Single(said));
        File.Delete(At("s"));
        Assert.Equal(["one"], store.Import(At("instead")).Runs);
        Assert.Equal((1, RunStatus.Finished), (store.Steps("one").Count, store.Get("one")!.Status));

        File.WriteAllText(At("t"), "");
        using (var lost = new LiteRunStore(At("t")).BeginBestEffort(Start("two"), 0, said.Add, At("t/x")))
        {
            lost.Append([Row(1)]);
            lost.End(new Outcome(RunStatus.Finished));
        }
        Assert.Contains("NOT recorded", said[1]);
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);
}
