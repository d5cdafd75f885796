namespace Memopt.Tracking.Tests;

/// <summary>Experiments with ids of their own, and runs that are hidden with them.</summary>
public sealed class ExperimentsTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    private static RunStart Start(string id, string experiment) =>
        new()
        {
            Id = id,
            Experiment = experiment,
            Started = DateTimeOffset.UtcNow,
            Config = "{}",
        };

    private static void Ended(LiteRunStore store, RunStart start)
    {
        using var run = store.Begin(start);
        run.End(new Outcome(RunStatus.Finished) { Ended = DateTimeOffset.UtcNow });
    }

    [Fact]
    public void Experiment_named_by_a_run_exists_and_keeps_its_id()
    {
        using var store = new LiteRunStore(folder);
        Assert.Equal([("0", "Default")], store.Experiments.All().Select(one => (one.Id, one.Name)));
        Ended(store, Start("a", "default"));
        Ended(store, Start("b", "mine"));
        Assert.Equal([("0", "Default"), ("1", "mine")], store.Experiments.All().Select(one => (one.Id, one.Name)));
        Assert.Null(store.Experiments.Create("mine", new Dictionary<string, string>()));
        Assert.Equal("2", store.Experiments.Create("other", new Dictionary<string, string>())!.Id);
        using var later = new LiteRunStore(folder);
        Assert.Equal(
            ("1", "0", "3"),
            (later.Experiments.Of("mine").Id, later.Experiments.Of("default").Id, later.Experiments.Of("unseen").Id)
        );
    }

    [Fact]
    public void Experiment_renamed_keeps_its_runs_and_frees_its_old_name()
    {
        using var store = new LiteRunStore(folder);
        var first = store.Experiments.Create("x", new Dictionary<string, string>())!;
        Assert.Null(store.Experiments.Change(first.Id, one => one with { Name = "Default" }));
        Assert.Equal("y", store.Experiments.Change(first.Id, one => one with { Name = "y" })!.Name);
        Assert.Equal((first.Id, first.Id), (store.Experiments.Of("x").Id, store.Experiments.Of("y").Id));
        var second = store.Experiments.Create("x", new Dictionary<string, string>())!;
        Assert.Equal(second.Id, store.Experiments.Of(second.Key).Id);
        Assert.Equal(["x", "y"], store.Experiments.Keys(store.Experiments.Get(first.Id)!));
        Assert.Throws<TrackingException>(() => store.Experiments.Change("99", one => one));
    }

    [Theory]
    [InlineData("")]
    [InlineData("[{")]
    [InlineData("null")]
    [InlineData("[]")]
    [InlineData("[null]")]
    [InlineData("""[{"Id":"x","Name":"x","Key":"x"}]""")]
    public void Experiments_file_damaged_is_named_and_set_aside_by_the_doctor(string damaged)
    {
        using var store = new LiteRunStore(folder);
        Ended(store, Start("a", "mine"));
        var file = Path.Combine(folder, "experiments.json");
        File.WriteAllText(file, damaged);
        Assert.Contains("doctor --repair", Assert.Throws<TrackingException>(() => store.Find(new RunQuery())).Next);
        Assert.Equal(
            (file, false),
            Assert.Single(store.Check(repair: false)) is var found ? (found.File, found.Repaired) : default
        );
        Assert.True(Assert.Single(store.Check(repair: true)).Repaired);
        Assert.Empty(store.Check(repair: false));
        Assert.Single(store.Find(new RunQuery()).Runs);
        Assert.Equal(["Default", "mine"], store.Experiments.All().Select(one => one.Name));
        Assert.Equal(damaged, File.ReadAllText(file + ".damaged"));
    }

    [Fact]
    public void Runs_deleted_or_of_deleted_experiments_are_hidden()
    {
        using var store = new LiteRunStore(folder);
        foreach (var (id, experiment) in new[] { ("a", "one"), ("b", "one"), ("c", "two") })
            Ended(store, Start(id, experiment));
        using (var late = store.Amend("a"))
            late.Tag(Run.DeletedTag, "now");
        store.Experiments.Change(store.Experiments.Of("two").Id, one => one with { Deleted = true });
        string Found(bool? deleted) =>
            string.Join(
                ' ',
                store.Find(new RunQuery { Deleted = deleted, Order = ["run_id"] }).Runs.Select(run => run.Start.Id)
            );
        Assert.Equal(("b", "a c", "a b c"), (Found(false), Found(true), Found(null)));
        Assert.Equal("b", Assert.Single(store.Find(new RunQuery { Experiments = ["one"] }).Runs).Start.Id);
        Assert.Equal(RunStatus.Finished, store.Get("a")!.Status);
    }

    [Fact]
    public void Run_amended_keeps_its_status_when_the_database_is_rebuilt()
    {
        using var store = new LiteRunStore(folder);
        Ended(store, Start("a", "one"));
        for (var i = 0; i < 3; i++)
        {
            using var late = store.Amend("a");
            late.Append(new MetricRow(i, new Dictionary<string, double> { ["late"] = i }));
            late.Link(new ArtifactLink($"file{i}", new string('a', 64), 1));
            if (i == 2)
                late.Link(new ArtifactLink("file0", "", 0));
            store.Find(new RunQuery());
        }
        Assert.Throws<TrackingException>(() => store.Amend("none"));
        using (store.Amend("a"))
            Assert.Throws<TrackingException>(() => store.Amend("a"));
        foreach (var file in Directory.EnumerateFiles(folder, "runs*.db"))
            File.Delete(file);
        var run = store.Get("a")!;
        Assert.Equal((RunStatus.Finished, 3), (run.Status, run.Metrics["late"].Count));
        Assert.Equal(["file1", "file2"], run.Artifacts.Select(link => link.Name));
        Assert.Empty(store.Check(repair: false));
    }

    [Fact]
    public void Runs_are_found_by_the_id_of_a_renamed_experiment()
    {
        using var store = new LiteRunStore(folder);
        var id = store.Experiments.Create("7", new Dictionary<string, string>())!.Id;
        Ended(store, Start("a", "7"));
        Ended(store, Start("b", "new"));
        Ended(store, Start("c", Experiments.DefaultKey));
        store.Experiments.Change(id, one => one with { Name = "renamed" });
        string Found(string filter) =>
            string.Join(' ', store.Find(new RunQuery { Filter = filter }).Runs.Select(run => run.Start.Id).Order());
        Assert.Equal(("1", "a", "a"), (id, Found("experiment_id = '1'"), Found("attributes.experiment_id = 1")));
        Assert.Equal(
            ("", "c", "b c"),
            (Found("experiment_id = '7'"), Found("experiment_id = '0'"), Found("experiment_id in ('0', '2')"))
        );
        Assert.Equal(
            ("a", "a c"),
            (
                Found("artifact_uri = 'mlflow-artifacts:/1/a/artifacts'"),
                Found("attributes.artifact_uri like '%:/0/%' or artifact_uri like '%/1/a/%'")
            )
        );
        Assert.Equal(
            ["2", "1", "0"],
            store
                .Find(new RunQuery { Filter = "order by experiment_id desc", Columns = ["experiment_id"] })
                .Values.Select(row => row[0])
        );
    }

    [Fact]
    public void Run_resumed_at_the_greatest_step_drops_no_points()
    {
        using var store = new LiteRunStore(folder);
        using (var run = store.Begin(Start("a", "one")))
            run.Append(new MetricRow(long.MaxValue, new Dictionary<string, double> { ["m"] = 1 }));
        using (var run = store.Begin(Start("a", "one"), int.MaxValue))
            run.Append(new MetricRow(-5, new Dictionary<string, double> { ["m"] = 2 }));
        Assert.Equal([-5, long.MaxValue], store.Points("a", "m").Select(point => point.Step));
    }

    [Fact]
    public void Experiments_changed_by_several_stores_at_once_lose_no_change()
    {
        var stores = Enumerable.Range(0, 4).Select(_ => new LiteRunStore(folder)).ToList();
        Parallel.ForEach(
            stores.Select((store, i) => (store, i)),
            one =>
            {
                for (var n = 0; n < 10; n++)
                {
                    Assert.NotNull(one.store.Experiments.Create($"{one.i}-{n}", new Dictionary<string, string>()));
                    one.store.Experiments.Change(
                        "0",
                        known =>
                            known with
                            {
                                Tags = new Dictionary<string, string>(known.Tags) { [$"{one.i}-{n}"] = "" },
                            }
                    );
                }
            }
        );
        var all = stores[0].Experiments.All();
        Assert.Equal(41, all.Count);
        Assert.Equal(Enumerable.Range(0, 41), all.Select(one => int.Parse(one.Id)));
        Assert.Equal(40, all[0].Tags.Count);
    }

    [Fact]
    public void Experiments_query_returns_pages_in_order()
    {
        using var store = new LiteRunStore(folder);
        foreach (var letter in "abcde")
            store.Experiments.Create(
                $"e-{letter}",
                new Dictionary<string, string> { ["vowel"] = letter is 'a' or 'e' ? "yes" : "no" }
            );
        var (seen, page) = (new List<string>(), (string?)null);
        do
        {
            var found = store.Experiments.Find(
                "name like 'e-%' and (tags.vowel = 'no' or name = 'e-e')",
                ["name desc"],
                deleted: false,
                2,
                page
            );
            seen.AddRange(found.Found.Select(one => one.Name));
            page = found.Next;
        } while (page is not null);
        Assert.Equal(["e-e", "e-d", "e-c", "e-b"], seen);
        Assert.Throws<QueryException>(() => store.Experiments.Find("name ==", [], null, 5, null));
    }
}
