using System.Text;
using Memopt.Trainer.Hub;

namespace Memopt.Trainer.Tests.Hub;

/// <summary>Data sets of the hub: which files are meant, and that they arrive like a model's.</summary>
[Collection(Network.Name)]
public sealed class HubDataSetTests
{
    [Theory]
    [InlineData("hf:org/name", "org/name", null, null)]
    [InlineData("hf:org/name@v1.0", "org/name", "v1.0", null)]
    [InlineData("hf:org/name/data/train-*.parquet", "org/name", null, "data/train-*.parquet")]
    [InlineData("hf:org/name@refs/convert/parquet/default/train", "org/name", "refs/convert/parquet", "default/train")]
    public void A_name_is_understood(string text, string id, string? revision, string? path)
    {
        var source = HubDataSet.Parse(text);
        Assert.Equal((id, revision, path), (source.Id, source.Revision, source.Path));
        Assert.Equal(text, source.ToString());
    }

    [Theory, InlineData("hf:name"), InlineData("hf:org/name/../x"), InlineData("hf:-x/y"), InlineData("hf:org/name@")]
    public void A_name_that_is_none_is_refused(string text) => Assert.NotNull(Assert.Throws<UserFault>(() => HubDataSet.Parse(text)).Next);

    [Theory]
    [InlineData("hf:o/n", "data/train-0.parquet,data/train-1.parquet", "data/test-0.parquet", "data/train-1.parquet", "data/train-0.parquet", "README.md", "train.py")]
    [InlineData("hf:o/n", "a.jsonl,b.jsonl.gz", "b.jsonl.gz", "a.jsonl", "a-test.jsonl", "validation/a.jsonl", "dataset_infos.json", "image.png")]
    [InlineData("hf:o/n", "train.parquet", "train.parquet", "train.jsonl")]
    [InlineData("hf:o/n", "training_notes.jsonl", "training_notes.jsonl", "dev.jsonl")]
    [InlineData("hf:o/n/data", "data/b.csv,data/c/a.csv", "data/b.csv", "data/c/a.csv", "train.csv")]
    [InlineData("hf:o/n/**/*.csv", "data/b.csv,data/c/a.csv,train.csv", "data/b.csv", "data/c/a.csv", "train.csv", "x.json")]
    public void The_training_split_is_taken_unless_a_path_is_named(string source, string expected, params string[] files) =>
        Assert.Equal(expected.Split(','), HubDataSet.Parse(source).Choose(files));

    [Fact]
    public async Task A_data_set_arrives_whole_in_the_shared_layout_and_is_found_without_a_server()
    {
        using var bench = new Workbench();
        bench.Server.DataSet = true;
        var rows = Encoding.UTF8.GetBytes("{\"text\":\"a\"}\n");
        bench.Server.Files["data/train-0.jsonl"] = new(rows, Large: true);
        bench.Server.Files["data/test-0.jsonl"] = new("{}"u8.ToArray(), Large: false);
        bench.Server.Files["load.py"] = new("raise SystemExit"u8.ToArray(), Large: false);
        var source = HubDataSet.Parse("hf:org/model");
        async Task<LocalModel> Bring(HubDataSet wanted, bool offline)
        {
            using var hub = new ModelHub(bench.Settings with { Offline = offline });
            return await hub.DataAsync(wanted, bench, default);
        }
        var offline = await Assert.ThrowsAsync<UserFault>(() => Bring(source, true));
        Assert.Contains("dotnet memopt pull hf:org/model", offline.Next);
        var here = await Bring(source, false);
        Assert.Equal((HubServer.Commit, rows.Length), (here.Commit, here.FetchedBytes));
        var file = Assert.Single(here.Files);
        Assert.Equal(("data/train-0.jsonl", "sha256:" + bench.Server.Files["data/train-0.jsonl"].Sha256), (file.Path, file.Hash));
        Assert.Equal(Path.Combine(bench.Settings.HubCache, "datasets--org--model", "snapshots", HubServer.Commit), here.Folder);
        Assert.Equal(rows, File.ReadAllBytes(Path.Combine(here.Folder, file.Path)));
        Assert.Equal(HubServer.Commit, File.ReadAllText(Path.Combine(bench.Settings.HubCache, "datasets--org--model", "refs", "main")));
        Assert.Equal(here.Files, (await Bring(source, true)).Files);
        // Another choice of its files is not here; the ref alone says nothing.
        var other = source with { Path = "data" };
        await Assert.ThrowsAsync<UserFault>(() => Bring(other, true));
        Assert.Equal(2, (await Bring(other, false)).Files.Count);
        Assert.Single((await Bring(source, true)).Files);
        using var caches = new ModelHub(bench.Settings);
        Assert.Equal("hf:org/model", Assert.Single(caches.Cached().List()).Name);
        Assert.Contains("no files of rows", (await Assert.ThrowsAsync<UserFault>(() => Bring(source with { Path = "nothing" }, false))).Message);
    }
}
