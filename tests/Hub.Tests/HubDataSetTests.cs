using System.Text;
using Memopt.Core;

namespace Memopt.Hub.Tests;

/// <summary>Data sets of the hub: which files are meant, and that they arrive like a model's.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class HubDataSetTests
{
    [Theory]
    [InlineData("hf:org/name", "org/name", null, null)]
    [InlineData("hf:org/name@v1.0", "org/name", "v1.0", null)]
    [InlineData("hf:org/name/data/train-*.parquet", "org/name", null, "data/train-*.parquet")]
    [InlineData("hf:org/name@refs/convert/parquet/default/train", "org/name", "refs/convert/parquet", "default/train")]
    public void Data_set_name_is_parsed(string text, string id, string? revision, string? path)
    {
        var source = HubDataSet.Parse(text);
        Assert.Equal((id, revision, path), (source.Id, source.Revision, source.Path));
        Assert.Equal(text, source.ToString());
    }

    [Theory]
    [InlineData("hf:org/name:main", "main", null, null)]
    [InlineData("hf:org/name:20220301.en:test@v1", "20220301.en", "test", "v1")]
    [InlineData("hf:org/name::train_sft", null, "train_sft", null)]
    public void Data_set_name_with_colons_names_configuration_and_split(
        string text,
        string? configuration,
        string? split,
        string? revision
    )
    {
        var source = HubDataSet.Parse(text);
        Assert.Equal(
            ("org/name", configuration, split, revision, null),
            (source.Id, source.Configuration, source.Split, source.Revision, source.Path)
        );
        Assert.Equal(text, source.ToString());
    }

    [
        Theory,
        InlineData("hf:name"),
        InlineData("hf:org/name/../x"),
        InlineData("hf:-x/y"),
        InlineData("hf:org/name@"),
        InlineData("hf:org/name:"),
        InlineData("hf:org/name::"),
        InlineData("hf:org/name:main/x.csv")
    ]
    public void Data_set_name_that_is_malformed_is_refused(string text) =>
        Assert.NotNull(Assert.Throws<UserFault>(() => HubDataSet.Parse(text)).Next);

    [Theory]
    [InlineData(
        "hf:o/n",
        "data/train-0.parquet,data/train-1.parquet",
        "data/test-0.parquet",
        "data/train-1.parquet",
        "data/train-0.parquet",
        "README.md",
        "train.py"
    )]
    [InlineData(
        "hf:o/n",
        "a.jsonl,b.jsonl.gz",
        "b.jsonl.gz",
        "a.jsonl",
        "a-test.jsonl",
        "validation/a.jsonl",
        "dataset_infos.json",
        "image.png"
    )]
    [InlineData("hf:o/n", "train.parquet", "train.parquet", "train.jsonl")]
    [InlineData("hf:o/n", "training_notes.jsonl", "training_notes.jsonl", "dev.jsonl")]
    [InlineData(
        "hf:o/n",
        "data/train-00000-of-00002-ab.parquet",
        "data/train-00000-of-00002-ab.parquet",
        "extra/train.parquet",
        "data/test-00000-of-00001.parquet"
    )]
    [InlineData("hf:o/n::test", "evaluation/a.csv", "evaluation/a.csv", "a.csv")]
    [InlineData(
        "hf:o/n::train_gen",
        "data/train_gen-00000-of-00001.parquet",
        "data/train_sft-00000-of-00001.parquet",
        "data/train_gen-00000-of-00001.parquet"
    )]
    [InlineData("hf:o/n::validation", "dev2.jsonl", "train1.jsonl", "dev2.jsonl", "device.jsonl")]
    [InlineData("hf:o/n", "a/x.jsonl", "a/x.jsonl", ".cache/train.jsonl", "__pycache__/train.jsonl")]
    [InlineData("hf:o/n/data", "data/b.csv,data/c/a.csv", "data/b.csv", "data/c/a.csv", "train.csv")]
    [InlineData(
        "hf:o/n/**/*.csv",
        "data/b.csv,data/c/a.csv,train.csv",
        "data/b.csv",
        "data/c/a.csv",
        "train.csv",
        "x.json"
    )]
    public void Split_defaults_to_training_unless_a_path_is_named(
        string source,
        string expected,
        params string[] files
    ) => Assert.Equal(expected.Split(','), HubDataSet.Parse(source).Choose(files));

    private const string Card = """
        ---
        license: mit
        configs:
        - config_name: main
          data_files:
          - split: train
            path: main/train-*
          - split: test
            path:
            - main/test-*
            - more/*.jsonl
        - config_name: socratic
          data_dir: socratic
        - config_name: plain
          data_files: "./plain/**/*.csv"
        ---
        # About
        configs: none
        """;

    private static readonly string[] carded =
    [
        "README.md",
        "main/train-0.parquet",
        "main/test-0.parquet",
        "more/a.jsonl",
        "socratic/train/0.parquet",
        "socratic/test/0.parquet",
        "plain/a.csv",
        "plain/b/test.csv",
        "train.jsonl",
    ];

    [Theory]
    [InlineData("hf:o/n:main", "main/train-0.parquet")]
    [InlineData("hf:o/n:main:test", "main/test-0.parquet")]
    [InlineData("hf:o/n:socratic", "socratic/train/0.parquet")]
    [InlineData("hf:o/n:socratic:test", "socratic/test/0.parquet")]
    [InlineData("hf:o/n:plain", "plain/a.csv,plain/b/test.csv")]
    [InlineData("hf:o/n/train.jsonl", "train.jsonl")]
    public void Card_defines_the_files_of_a_configuration(string source, string expected) =>
        Assert.Equal(expected.Split(','), HubDataSet.Parse(source).Choose(carded, Card));

    [Theory]
    [InlineData("hf:o/n", "configurations: main, socratic, plain", "hf:o/n:main")]
    [InlineData("hf:o/n::test", "configurations: main, socratic, plain", "hf:o/n:main:test")]
    [InlineData("hf:o/n:other", "configurations: main, socratic, plain", "hf:o/n:main")]
    [InlineData("hf:o/n:main:dev", "splits: train, test", "hf:o/n:main:train")]
    public void Data_set_name_that_is_ambiguous_is_refused_with_the_choices(string source, string found, string next)
    {
        var fault = Assert.Throws<UserFault>(() => HubDataSet.Parse(source).Choose(carded, Card));
        Assert.Equal(found, fault.Found);
        Assert.EndsWith(" " + next, fault.Next);
    }

    [Theory]
    [InlineData("- config_name: a\n  data_files: a.csv\n- config_name: default\n  data_files: b.csv", "b.csv")]
    [InlineData(
        "- config_name: a\n  data_files: a.csv\n- config_name: c\n  default: true\n  data_dir: ./\n  data_files: "
            + "[c.csv, d.csv]",
        "c.csv,d.csv"
    )]
    [InlineData("- config_name: only\n  data_files:\n  - {split: train, path: a.csv}", "a.csv")]
    public void Configuration_that_is_single_or_default_needs_no_name(string configs, string expected) =>
        Assert.Equal(
            expected.Split(','),
            HubDataSet.Parse("hf:o/n").Choose(["a.csv", "b.csv", "c.csv", "d.csv"], $"---\nconfigs:\n{configs}\n---\n")
        );

    [
        Theory,
        InlineData("# No head"),
        InlineData("---\nlicense: mit\n---\n"),
        InlineData("---\nnever: closed"),
        InlineData("")
    ]
    public void Card_without_configurations_selects_files_by_their_names(string card) =>
        Assert.Equal(["train.csv"], HubDataSet.Parse("hf:o/n").Choose(["train.csv", "test.csv"], card));

    [
        Theory,
        InlineData("configs: [a"),
        InlineData("configs: a"),
        InlineData("configs:\n- data_files: a.csv"),
        InlineData("configs:\n- config_name: a\n  data_files:\n  - split: train"),
        InlineData(
            "configs:\n- config_name: a\n  data_files:\n  - {split: train, path: a.csv}\n  - {split: train, "
                + "path: b.csv}"
        )
    ]
    public void Card_that_is_malformed_is_refused(string head) =>
        Assert.Contains(
            "README.md",
            Assert.Throws<UserFault>(() => HubDataSet.Parse("hf:o/n").Choose(["a.csv"], $"---\n{head}\n---\n")).Found
        );

    [Fact]
    public void Card_globs_match_quickly_and_malformed_ones_are_refused()
    {
        static IReadOnlyList<string> Choose(string glob) =>
            HubDataSet
                .Parse("hf:o/n")
                .Choose(
                    [new string('a', 120) + ".csv"],
                    $"---\nconfigs:\n- config_name: a\n  data_files: '{glob}'\n---\n"
                );
        var clock = System.Diagnostics.Stopwatch.StartNew();
        Assert.Empty(Choose(string.Concat(Enumerable.Repeat("*a", 30)) + "b"));
        // tried one by one the ways to match take years
        Assert.True(clock.Elapsed.TotalMinutes < 2, $"{clock.Elapsed}");
        Assert.Equal("[z-a].csv", Assert.Throws<UserFault>(() => Choose("[z-a].csv")).Found);
    }

    [Theory, InlineData("[", ""), InlineData("{a: ", ""), InlineData("- ", "x"), InlineData("? ", "x")]
    public void Card_nested_too_deep_is_refused(string open, string close) =>
        Card_that_is_malformed_is_refused("configs:\n  " + string.Concat(Enumerable.Repeat(open, 20_000)) + close);

    [Fact]
    public async Task Configuration_pulled_is_found_again_without_a_server()
    {
        using var fixture = new PullFixture();
        fixture.Server.DataSet = true;
        fixture.Server.Files[ModelFiles.Card] = new(Encoding.UTF8.GetBytes(Card), Large: false);
        foreach (var name in carded.Skip(1))
            fixture.Server.Files[name] = new(Encoding.UTF8.GetBytes(name), Large: true);
        foreach (var offline in (bool[])[false, true])
        {
            using var hub = new ModelHub(fixture.Settings with { Offline = offline });
            var here = await hub.DataAsync(HubDataSet.Parse("hf:org/model:main:test"), fixture, default);
            Assert.Equal(["main/test-0.parquet"], here.Files.Select(file => file.Path));
            await Assert.ThrowsAsync<UserFault>(() =>
                hub.DataAsync(HubDataSet.Parse("hf:org/model"), fixture, default)
            );
        }
    }

    [Fact]
    public async Task Data_set_pulled_lies_in_the_shared_layout_and_is_found_without_a_server()
    {
        using var fixture = new PullFixture();
        fixture.Server.DataSet = true;
        var rows = Encoding.UTF8.GetBytes("{\"text\":\"a\"}\n");
        fixture.Server.Files["data/train-0.jsonl"] = new(rows, Large: true);
        fixture.Server.Files["data/test-0.jsonl"] = new("{}"u8.ToArray(), Large: false);
        fixture.Server.Files["load.py"] = new("raise SystemExit"u8.ToArray(), Large: false);
        var source = HubDataSet.Parse("hf:org/model");
        async Task<Snapshot> Bring(HubDataSet wanted, bool offline)
        {
            using var hub = new ModelHub(fixture.Settings with { Offline = offline });
            return await hub.DataAsync(wanted, fixture, default);
        }
        var offline = await Assert.ThrowsAsync<UserFault>(() => Bring(source, true));
        Assert.Contains("dotnet memopt pull hf:org/model", offline.Next);
        var here = await Bring(source, false);
        Assert.Equal(
            (HubServer.Commit, rows.Length + fixture.Server.Files[ModelFiles.Card].Bytes.Length),
            (here.Commit, here.FetchedBytes)
        );
        var file = Assert.Single(here.Files);
        Assert.Equal(
            ("data/train-0.jsonl", "sha256:" + fixture.Server.Files["data/train-0.jsonl"].Sha256),
            (file.Path, file.Hash)
        );
        Assert.Equal(
            Path.Combine(fixture.Settings.HubCache, "datasets--org--model", "snapshots", HubServer.Commit),
            here.Folder
        );
        Assert.Equal(rows, File.ReadAllBytes(Path.Combine(here.Folder, file.Path)));
        Assert.Equal(
            HubServer.Commit,
            File.ReadAllText(Path.Combine(fixture.Settings.HubCache, "datasets--org--model", "refs", "main"))
        );
        Assert.Equal(here.Files, (await Bring(source, true)).Files);
        // Another choice of its files is not here; the ref alone says nothing.
        var other = source with
        {
            Path = "data",
        };
        await Assert.ThrowsAsync<UserFault>(() => Bring(other, true));
        Assert.Equal(2, (await Bring(other, false)).Files.Count);
        Assert.Single((await Bring(source, true)).Files);
        using var caches = new ModelHub(fixture.Settings);
        Assert.Equal("hf:org/model", Assert.Single(caches.Cached().List()).Name);
        Assert.Contains(
            "no files of rows",
            (await Assert.ThrowsAsync<UserFault>(() => Bring(source with { Path = "nothing" }, false))).Message
        );
    }
}
