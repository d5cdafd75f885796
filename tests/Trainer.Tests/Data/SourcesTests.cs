using System.Text;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Tests.Data;

/// <summary>From sources of a config to rows: shapes, columns, cuts, sides, samples, weights, and the cache of large
/// files.</summary>
public sealed class SourcesTests : IDisposable
{
    private static readonly Tokenizer nano = Tokenizer.Load(TestBackend.Nano);
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;
    private readonly List<string> notes = [];
    private int progress;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    private string Write(string name, string text)
    {
        var path = Path.Combine(folder, name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, text);
        return path;
    }

    private Dataset? Load(string data, DataRole role = DataRole.Train, int chunkBytes = 8 << 20, string? model = null)
    {
        var config = Write("memopt.json", $"{{ \"data\": {data} }}");
        progress = 0;
        notes.Clear();
        return Dataset.Load(
            RunConfigFile.Read(config, []),
            new ChatEncoder(model ?? TestBackend.Nano, new HashSet<int> { nano.Id("<|im_end|>")!.Value }),
            role,
            chunkBytes,
            new(notes.Add, (_, _) => progress++)
        );
    }

    private static string Text(Row row) => nano.Decode(row.Ids, skipSpecial: false);

    private static string Trained(Row row) =>
        nano.Decode([.. row.Labels.Where(label => label != Row.NoLoss)], skipSpecial: false);

    private static string Line(object row) => System.Text.Json.JsonSerializer.Serialize(row) + "\n";

    private static string Texts(int count, int from = 0) =>
        string.Concat(
            Enumerable.Range(from, count).Select(i => $"{{\"text\":\"row {i} {new string('x', i % 13)}\"}}\n")
        );

    [Fact]
    public void Chat_of_any_shape_gives_the_same_tokens()
    {
        Write(
            "messages.jsonl",
            Line(
                new
                {
                    messages = new[]
                    {
                        new { role = "system", content = "s" },
                        new { role = "user", content = "do it\n\nwith this" },
                        new { role = "assistant", content = "noun" },
                    },
                }
            )
        );
        Write(
            "share.jsonl",
            Line(
                new
                {
                    conversations = new[]
                    {
                        new { from = "system", value = "s" },
                        new { from = "human", value = "do it\n\nwith this" },
                        new { from = "gpt", value = "noun" },
                    },
                }
            )
        );
        Write(
            "alpaca.jsonl",
            Line(
                new
                {
                    instruction = "do it",
                    input = "with this",
                    output = "noun",
                    system = "s",
                }
            )
        );
        Write(
            "table.csv",
            "messages\n"
                + "\"[{\"\"role\"\":\"\"system\"\",\"\"content\"\":\"\"s\"\"},{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"do "
                + "it\\n\\nwith this\"\"},{\"\"role\"\":\"\"assistant\"\",\"\"content\"\":\"\"noun\"\"}]\"\n"
        );
        var rows = Load("""{ "train": ["messages.jsonl", "share.jsonl", "alpaca.jsonl", "table.csv"] }""")!.Rows;
        Assert.Equal(
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\ndo it\n\nwith this<|im_end|>\n"
                + "<|im_start|>assistant\nnoun<|im_end|>\n",
            Text(rows[0])
        );
        Assert.Equal(4, rows.Count);
        Assert.All(
            rows,
            row =>
                Assert.Equal(
                    (rows[0].Ids, rows[0].Labels),
                    (row.Ids, row.Labels),
                    (a, b) => a.Item1.SequenceEqual(b.Item1) && a.Item2.SequenceEqual(b.Item2)
                )
        );
        Assert.Equal("noun<|im_end|>", Trained(rows[2]));
    }

    [Fact]
    public void Instructions_without_a_template_use_the_Alpaca_prompt()
    {
        var model = Path.Combine(folder, "model");
        Directory.CreateDirectory(model);
        File.Copy(Path.Combine(TestBackend.Nano, "tokenizer.json"), Path.Combine(model, "tokenizer.json"));
        Write(
            "a.jsonl",
            Line(new { instruction = "Say hi.", output = "hi" })
                + Line(
                    new
                    {
                        instruction = "Add.",
                        input = "1 2",
                        output = "3",
                    }
                )
        );
        var rows = Load("""{ "train": "a.jsonl" }""", model: model)!.Rows;
        // Stanford Alpaca's PROMPT_DICT, train.py.
        Assert.Equal(
            "Below is an instruction that describes a task. Write a response that appropriately completes the "
                + "request.\n\n### Instruction:\nSay hi.\n\n### Response:\nhi",
            Text(rows[0])
        );
        Assert.StartsWith(
            "Below is an instruction that describes a task, paired with an input that provides further context. "
                + "Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n"
                + "1 2\n\n### Response:\n",
            Text(rows[1])
        );
        Assert.Equal("3", Trained(rows[1]));
    }

    [Fact]
    public void Columns_may_be_renamed_and_lie_within_objects()
    {
        Write("a.jsonl", """{"question":"2+2=","answers":{"best":" four"},"prompt":"not this"}""" + "\n");
        Assert.Equal(
            "2+2= four<|im_end|>",
            Text(
                Load(
                    """{ "train": { "source": "a.jsonl", "columns": { "prompt": "question", "completion": "answers.best" } } }"""
                )!.Rows[0]
            )
        );
        var fault = Assert.Throws<UserFault>(() =>
            Load(
                """{ "train": { "source": "a.jsonl", "columns": { "prompt": "question", "completion": "answers.worst" } } }"""
            )
        );
        Assert.Contains("no column \"answers.worst\": it has question, answers, prompt", fault.Found);
    }

    [Fact]
    public void Preference_pairs_are_refused_in_training_and_accepted_on_request()
    {
        Write(
            "a.jsonl",
            Line(
                new
                {
                    prompt = "2+2=",
                    chosen = " four",
                    rejected = " five",
                }
            )
                + Line(
                    new
                    {
                        chosen = new[]
                        {
                            new { role = "user", content = "q" },
                            new { role = "assistant", content = "good" },
                        },
                        rejected = new[]
                        {
                            new { role = "user", content = "q" },
                            new { role = "assistant", content = "bad" },
                        },
                    }
                )
        );
        var fault = Assert.Throws<UserFault>(() => Load("""{ "train": "a.jsonl" }"""));
        Assert.Contains("not trained on yet", fault.Message);
        Assert.Equal(1, Assert.Single(fault.Problems).Line);
        var pairs = Dataset.Pairs(
            RunConfigFile.Read(Path.Combine(folder, "memopt.json"), []),
            new ChatEncoder(TestBackend.Nano, new HashSet<int> { nano.Id("<|im_end|>")!.Value }),
            5
        );
        Assert.Equal(
            [" four<|im_end|>| five<|im_end|>", "good<|im_end|>|bad<|im_end|>"],
            pairs.Select(pair => $"{Trained(pair.Chosen)}|{Trained(pair.Rejected)}")
        );
        Assert.Equal("2+2= four<|im_end|>", Text(pairs[0].Chosen));
        // The way that the fault names.
        Write(
            "b.jsonl",
            Line(
                new
                {
                    prompt = "2+2=",
                    chosen = " four",
                    rejected = " five",
                }
            )
        );
        Assert.Equal(
            " four<|im_end|>",
            Trained(Load("""{ "train": { "source": "b.jsonl", "columns": { "completion": "chosen" } } }""")!.Rows[0])
        );
    }

    [Fact]
    public void Column_without_a_value_counts_as_absent()
    {
        // As tables of several data sets have them when they are written as JSON.
        Write(
            "a.jsonl",
            """
            {"input_ids":null,"messages":null,"prompt":null,"completion":null,"text":"noun"}
            {"input_ids":null,"messages":null,"prompt":"a","completion":"b","chosen":null,"rejected":null,"text":null}
            """
        );
        Assert.Equal(["noun<|im_end|>", "ab<|im_end|>"], Load("""{ "train": "a.jsonl" }""")!.Rows.Select(Text));
    }

    [Theory, InlineData("a.jsonl.bz2"), InlineData("a.csv.XZ"), InlineData("rows.zip"), InlineData("rows.tar.gz")]
    public void Files_with_an_unsupported_compression_are_refused_by_name(string name)
    {
        Write(name, "x");
        var fault = Assert.Throws<UserFault>(() => Load($$"""{ "train": "{{name}}" }"""));
        Assert.Contains(
            $"\"{name}\" is packed in a way that is not read here",
            $"{fault.Found}{string.Concat(fault.Problems)}"
        );
    }

    [Fact]
    public void Answers_labelled_false_are_left_out_and_counted()
    {
        Write(
            "a.jsonl",
            Line(
                new
                {
                    prompt = "2+2=",
                    completion = " four",
                    label = true,
                }
            )
                + Line(
                    new
                    {
                        prompt = "2+2=",
                        completion = " five",
                        label = false,
                    }
                )
                + Line(
                    new
                    {
                        prompt = new[] { new { role = "user", content = "q" } },
                        completion = new[] { new { role = "assistant", content = "bad" } },
                        label = false,
                    }
                )
                + Line(
                    new
                    {
                        prompt = "1+1=",
                        completion = " two",
                        label = "even",
                    }
                )
                + Line(new { text = "verb", label = false })
        );
        Write("b.csv", "prompt,completion,label\n3+3=, six,True\n3+3=, seven,False\n");
        var data = Load("""{ "train": ["a.jsonl", "b.csv"] }""")!;
        Assert.Equal(
            ["2+2= four<|im_end|>", "1+1= two<|im_end|>", "verb<|im_end|>", "3+3= six<|im_end|>"],
            data.Rows.Select(Text)
        );
        Assert.Equal(3, data.Counts.Rejected);
        Assert.EndsWith(", 3 rows labelled false left out", data.Summary(new()));
        Assert.Contains(data.Facts("data.train"), fact => fact is { Key: "data.train.rejected", Value: "3" });
        // Under another name it says nothing.
        Assert.Equal(2, Load("""{ "train": { "source": "b.csv", "columns": { "class": "label" } } }""")!.Rows.Count);
        Write(
            "c.jsonl",
            Line(
                new
                {
                    prompt = "2+2=",
                    completion = " five",
                    label = false,
                }
            )
        );
        Assert.Contains("1 labelled false", Assert.Throws<UserFault>(() => Load("""{ "train": "c.jsonl" }""")).Found);
    }

    [Theory]
    [InlineData("right", "1,2,3,4|7,8", 1, 0, 0)]
    [InlineData("left", "3,4,5,6|7,8", 1, 0, 0)]
    [InlineData("drop", "7,8", 0, 1, 0)]
    [InlineData("split", "1,2,3,4|5,6|7,8", 0, 0, 1)]
    public void Long_rows_are_truncated_as_configured_and_counted(
        string truncate,
        string expected,
        int truncated,
        int dropped,
        int split
    )
    {
        Write("a.jsonl", "{\"input_ids\":[1,2,3,4,5,6]}\n{\"input_ids\":[7,8]}\n");
        var data = Load($$"""{ "train": "a.jsonl", "maxLength": 4, "truncate": "{{truncate}}" }""")!;
        Assert.Equal(expected, string.Join('|', data.Rows.Select(row => string.Join(',', row.Ids))));
        Assert.Equal(
            (truncated, dropped, split),
            ((int)data.Counts.Truncated, (int)data.Counts.Dropped, (int)data.Counts.Split)
        );
        Assert.Contains(
            data.Facts("data.train"),
            fact =>
                fact.Key == $"data.train.{(split > 0 ? "split" : dropped > 0 ? "dropped" : "truncated")}"
                && fact.Value == "1"
        );
    }

    [Fact]
    public void Split_of_a_long_row_leaves_out_parts_without_loss()
    {
        Write("a.jsonl", "{\"input_ids\":[1,2,3,4,5,6],\"labels\":[-100,-100,-100,-100,5,6]}\n");
        var row = Assert.Single(Load("""{ "train": "a.jsonl", "maxLength": 2, "truncate": "split" }""")!.Rows);
        Assert.Equal([5, 6], row.Ids);
    }

    [Fact]
    public void Evaluation_share_keeps_a_row_on_its_side_whatever_other_rows_there_are()
    {
        Write("a.jsonl", Texts(2000));
        const string Data = """{ "train": "a.jsonl", "evalShare": 0.2, "seed": 1 }""";
        var (train, eval) = (Load(Data)!, Load(Data, DataRole.Eval)!);
        Assert.Equal(2000, train.Rows.Count + eval.Rows.Count);
        Assert.InRange(eval.Rows.Count, 330, 470); // 400 ± four standard deviations
        Assert.Empty(train.Rows.Select(Text).Intersect(eval.Rows.Select(Text)));
        // Other rows before and between, another format, another seed, a repeated row: the same sides.
        Write(
            "a.json",
            "["
                + $"{string.Join(",", Texts(3000, from: 500).TrimEnd().Split('\n').Reverse().Prepend("{\"text\":\"row 7 xxxxxxx\"}"))}]"
        );
        var again = Load("""{ "train": "a.json", "evalShare": 0.2, "seed": 2 }""", DataRole.Eval)!;
        Assert.Equal(
            eval.Rows.Where(row => int.Parse(Text(row).Split(' ')[1]) >= 500).Select(Text).Order(),
            again.Rows.Select(Text).Where(text => int.Parse(text.Split(' ')[1]) is >= 500 and < 2000).Order()
        );
        Assert.Equal(
            eval.Rows.Any(row => Text(row).StartsWith("row 7 ", StringComparison.Ordinal)),
            again.Rows.Any(row => Text(row).StartsWith("row 7 ", StringComparison.Ordinal))
        );
        Assert.NotEqual(train.Hash, eval.Hash);
        Assert.Null(Load("""{ "train": "a.jsonl" }""", DataRole.Eval));
    }

    [Fact]
    public void Samples_are_the_same_for_a_seed_and_grow_with_their_number()
    {
        Write("a.jsonl", Texts(500));
        string[] Of(string data) => [.. Load(data)!.Rows.Select(Text)];
        var (some, more) = (Of("""{ "train": "a.jsonl#50" }"""), Of("""{ "train": "a.jsonl#100" }"""));
        Assert.Equal((50, 100), (some.Length, more.Length));
        Assert.Empty(some.Except(more));
        Assert.Equal(some, Of("""{ "train": "a.jsonl#50" }"""));
        Assert.NotEqual(some, Of("""{ "train": "a.jsonl#50", "seed": 7 }"""));
        Assert.Equal(some, some.OrderBy(text => int.Parse(text.Split(' ')[1])));
        Assert.Equal(500, Of("""{ "train": "a.jsonl#5000" }""").Length);
        // A sample is taken first and split then.
        const string Split = """{ "train": "a.jsonl#50", "evalShare": 0.3 }""";
        Assert.Equal(some.Order(), Load(Split)!.Rows.Concat(Load(Split, DataRole.Eval)!.Rows).Select(Text).Order());
        // A sample is of rows, not of the parts that they are split into.
        Write("b.jsonl", string.Concat(Enumerable.Range(0, 40).Select(i => $"{{\"input_ids\":[{i},2,3,4,5,6]}}\n")));
        Assert.Equal(30, Load("""{ "train": "b.jsonl#10", "maxLength": 2, "truncate": "split" }""")!.Rows.Count);
    }

    [Fact]
    public void Link_to_a_parent_folder_reads_no_file_twice()
    {
        Write("d/a.csv", "text\nrow 1\n");
        Write("other/b.csv", "text\nrow 2\n");
        Directory.CreateSymbolicLink(Path.Combine(folder, "d", "up"), "..");
        Directory.CreateSymbolicLink(Path.Combine(folder, "d", "other"), "../other");
        Assert.Equal(["row 1<|im_end|>", "row 2<|im_end|>"], Load("""{ "train": "d" }""")!.Rows.Select(Text));
        Assert.Equal(["row 1<|im_end|>", "row 2<|im_end|>"], Load("""{ "train": "d/**/*.csv" }""")!.Rows.Select(Text));
    }

    [Fact]
    public void Folders_and_globs_read_the_files_whose_names_match()
    {
        Write("d/b.jsonl", Texts(1, from: 2));
        Write("d/a/x.csv", "text\nrow 1\n");
        Write("d/readme.md", "no rows");
        Write("d/.hidden.jsonl", "no rows");
        Assert.Equal(2, Load("""{ "train": "d" }""")!.Rows.Count);
        Assert.Equal("row 1<|im_end|>", Text(Load("""{ "train": "d/**/*.csv" }""")!.Rows[0]));
        Assert.Equal("row 2 xx<|im_end|>", Text(Assert.Single(Load("""{ "train": "d/[a-b].json?" }""")!.Rows)));
        var fault = Assert.Throws<UserFault>(() =>
            Load("""{ "train": ["d/*.parquet", "nowhere.jsonl"], "eval": "a" }""")
        );
        Assert.Equal(["data.train", "data.train", "data.eval"], fault.Problems.Select(problem => problem.Path));
    }

    [Fact]
    public void Bad_rows_of_all_files_are_reported_together()
    {
        Write("a.jsonl", "{\"text\":\"fine\"}\n{}\n");
        Write("b.csv", "text,more\nfine,1\nbad\n");
        var fault = Assert.Throws<UserFault>(() => Load("""{ "train": ["a.jsonl", "b.csv"] }"""));
        Assert.Equal(
            [("a.jsonl", 2), ("b.csv", 3)],
            fault.Problems.Select(problem => (Path.GetFileName(problem.File!), problem.Line))
        );
    }

    [Fact]
    public void Token_cache_on_disk_gives_the_rows_of_memory_and_is_reused()
    {
        var file = Write("a.jsonl", Texts(3000));
        File.SetLastWriteTimeUtc(file, DateTime.UtcNow.AddMinutes(-1));
        const string Data = """{ "train": "a.jsonl", "maxLength": 8 }""";
        var memory = Load(Data)!;
        Assert.False(Directory.Exists(Path.Combine(folder, ".memopt/data")));
        var made = Load(Data, chunkBytes: 5000)!;
        var shards = Directory.GetFiles(Path.Combine(folder, ".memopt/data/shards"), "*", SearchOption.AllDirectories);
        Assert.True(shards.Length > 10);
        Assert.True(progress > 10);
        var found = Load(Data, chunkBytes: 5000)!;
        Assert.Equal((0, 0), (progress, notes.Count)); // nothing was read but the cache
        foreach (var data in new[] { made, found })
        {
            Assert.Equal(
                (memory.Hash, memory.Counts, memory.Tokens, memory.TargetCount, memory.Longest),
                (data.Hash, data.Counts, data.Tokens, data.TargetCount, data.Longest)
            );
            Assert.Equal(
                memory.Rows.Select(row => (row.Line, string.Join(',', row.Ids), string.Join(',', row.Labels))),
                data.Rows.Select(row => (row.Line, string.Join(',', row.Ids), string.Join(',', row.Labels)))
            );
            Assert.Equal(memory.Lengths, data.Lengths);
        }
        // Another setting that shapes rows, and none that does not.
        Load("""{ "train": "a.jsonl", "maxLength": 8, "seed": 3, "shuffle": false }""", chunkBytes: 5000);
        Assert.Equal(0, progress);
        Load("""{ "train": "a.jsonl", "maxLength": 9 }""", chunkBytes: 5000);
        Assert.True(progress > 10);
    }

    [Fact]
    public void Token_cache_tokenizes_only_added_rows_and_rebuilds_truncated_parts()
    {
        var file = Write("a.jsonl", Texts(3000));
        const string Data = """{ "train": "a.jsonl" }""";
        Load(Data, chunkBytes: 5000);
        File.AppendAllText(file, Texts(100, from: 9000));
        var longer = Load(Data, chunkBytes: 5000)!;
        Assert.Equal(3100, longer.Rows.Count);
        var reused = Assert.Single(notes, note => note.Contains("previous run", StringComparison.Ordinal)).Split(' ');
        Assert.InRange(int.Parse(reused[2]) - int.Parse(reused[0]), 1, 2);
        var shard = Directory.GetFiles(Path.Combine(folder, ".memopt/data/shards"), "*", SearchOption.AllDirectories)[
            3
        ];
        File.WriteAllBytes(shard, File.ReadAllBytes(shard)[..^1]);
        Assert.Equal(longer.Rows.Select(Text), Load(Data, chunkBytes: 5000)!.Rows.Select(Text));
    }

    [Fact]
    public void Token_cache_of_many_small_files_tokenizes_only_a_new_one()
    {
        for (var i = 0; i < 30; i++)
            File.SetLastWriteTimeUtc(Write($"d/{i:D2}.jsonl", Texts(20, from: 20 * i)), DateTime.UtcNow.AddMinutes(-1));
        var all = Load("""{ "train": "d" }""", chunkBytes: 4000)!;
        Assert.Equal(Enumerable.Range(0, 600), all.Rows.Select(row => int.Parse(Text(row).Split(' ')[1])));
        Assert.Equal(
            30,
            Directory.GetFiles(Path.Combine(folder, ".memopt/data/shards"), "*", SearchOption.AllDirectories).Length
        );
        Write("d/30.jsonl", Texts(20, from: 600));
        Assert.Equal(620, Load("""{ "train": "d" }""", chunkBytes: 4000)!.Rows.Count);
        Assert.Equal(1, progress);
        Write("d/31.jsonl", "{\"input_ids\":[1,999999]}\n");
        Assert.StartsWith(
            Path.Combine(folder, "d/31.jsonl") + ":1: ",
            Assert
                .Throws<UserFault>(() => Load("""{ "train": "d" }""", chunkBytes: 4000)!.EnsureVocabulary(1000))
                .Message
        );
    }

    [Fact]
    public void Token_cache_sees_a_change_of_the_same_size()
    {
        // Written just now (here: later than now, however long it takes), the time of change may not tell: then the
        // content is asked again, not its ends alone.
        var time = DateTime.UtcNow.AddHours(1);
        File.SetLastWriteTimeUtc(Write("a.jsonl", Texts(8000)), time);
        const string Data = """{ "train": "a.jsonl" }""";
        var before = Load(Data, chunkBytes: 50_000)!;
        File.SetLastWriteTimeUtc(Write("a.jsonl", Texts(8000).Replace("row 4000 ", "raw 4000 ")), time);
        var after = Load(Data, chunkBytes: 50_000)!;
        Assert.NotEqual(before.Hash, after.Hash);
        Assert.StartsWith("raw 4000", Text(after.Rows[4000]));
    }

    [Fact]
    public void Bad_rows_of_a_large_file_are_the_first_twenty_by_line()
    {
        var lines = Texts(2000).TrimEnd().Split('\n');
        for (var i = 100; i < 2000; i += 50)
            lines[i] = "{}";
        Write("a.jsonl", string.Join('\n', lines));
        var fault = Assert.Throws<UserFault>(() => Load("""{ "train": "a.jsonl" }""", chunkBytes: 3000));
        Assert.Equal(Enumerable.Range(0, 20).Select(i => 101 + 50 * i), fault.Problems.Select(problem => problem.Line));
    }

    [Fact]
    public void Token_shard_keeps_separate_labels_and_large_ids()
    {
        var random = new Random(5);
        for (var n = 1; n < 200; n++)
        {
            var ids = Enumerable
                .Range(0, n)
                .Select(_ => random.Next(3) == 0 ? random.Next() : random.Next(300))
                .ToArray();
            var labels = ids.Select(id =>
                    random.Next(4) == 0 ? Row.NoLoss
                    : n % 3 == 0 && random.Next(5) == 0 ? random.Next(1000)
                    : id
                )
                .ToArray();
            var builder = new TokenShard.Builder();
            builder.Add(new(ids, labels, 1), 4, 7, 0);
            var row = TokenShard.Of(builder.ToArray()).At(10, "")[0];
            Assert.Equal(
                (ids, labels, 14),
                (row.Ids, row.Labels, row.Line),
                (a, b) => a.Item1.SequenceEqual(b.Item1) && a.Item2.SequenceEqual(b.Item2) && a.Item3 == b.Item3
            );
        }
    }

    [Fact]
    public void Source_weights_repeat_rows_and_draw_shares_anew_each_epoch()
    {
        Write("a.jsonl", string.Concat(Enumerable.Range(1, 100).Select(i => $"{{\"input_ids\":[{i},1]}}\n")));
        Write("b.jsonl", string.Concat(Enumerable.Range(101, 400).Select(i => $"{{\"input_ids\":[{i},1]}}\n")));
        var data = Load(
            """{ "train": [{ "source": "a.jsonl", "weight": 2 }, { "source": "b.jsonl", "weight": 0.25 }] }"""
        )!;
        Dictionary<long, int> Epoch(Batches batches, int steps, int from = 0) =>
            Enumerable
                .Range(from, steps)
                .SelectMany(step => batches.Step(step))
                .SelectMany(batch => batch.Ids.Where((_, at) => at % 2 == 0))
                .CountBy(id => id)
                .ToDictionary();
        Batches New(double epochs, bool packing = false) =>
            new(
                data.Rows,
                new DataConfig { Packing = packing, MaxLength = 2 },
                new TrainConfig { BatchSize = 1, Epochs = epochs },
                1
            );
        var first = New(1).TotalSteps;
        Assert.InRange(first, 200 + 65, 200 + 135); // 100 ± four standard deviations
        var batches = New(2);
        var (one, two) = (Epoch(batches, first), Epoch(batches, batches.TotalSteps - first, first));
        Assert.All(Enumerable.Range(1, 100), id => Assert.Equal((2, 2), (one[id], two[id])));
        Assert.All(one.Keys.Where(id => id > 100), id => Assert.Equal(1, one[id]));
        Assert.NotEqual(one.Keys.Order(), two.Keys.Order());
        // From the seed and its number alone, in any order; and packed likewise.
        Assert.Equal(batches.Step(first + 3)[0].Ids, New(2).Step(first + 3)[0].Ids);
        Assert.Equal(batches.TotalSteps, New(2, packing: true).TotalSteps);
        // Epochs of unlike length end with a short step each.
        var wide = new Batches(data.Rows, new DataConfig(), new TrainConfig { BatchSize = 7, Epochs = 2 }, 7);
        Assert.Equal((first + 6) / 7 + (batches.TotalSteps - first + 6) / 7, wide.TotalSteps);
        Assert.Equal(
            first,
            Enumerable.Range(0, (first + 6) / 7).Sum(step => wide.Step(step).Sum(batch => batch.Count))
        );
    }

    [Fact]
    public void Source_settings_are_read_written_and_checked()
    {
        const string Written = """[{"source":"a.jsonl#5","weight":2,"columns":{"text":"body"},"format":"jsonl"},"b"]""";
        var config = RunConfigFile.Read(
            Write("memopt.json", $"{{ \"data\": {{ \"train\": {Written}, \"evalShare\": 0.1 }} }}"),
            ["data.eval=null"],
            checkFiles: false
        );
        Assert.Equal(
            JsonNode.Parse(Written)!.ToJsonString(),
            ConfigWriter.Write(config.Settings)["data"]!["train"]!.ToJsonString()
        );
        Assert.Equal(
            [
                new DataSource("a.jsonl", 5, 2, new Dictionary<string, string> { ["text"] = "body" }, DataFormat.Jsonl),
                new DataSource("b"),
            ],
            config.Settings.Data.Train.List
        );
        Assert.Equal(
            new DataSource("c"),
            Assert.Single(RunConfigFile.Read(config.File, ["data.train=c"], checkFiles: false).Settings.Data.Train.List)
        );
        var fault = Assert.Throws<UserFault>(() =>
            RunConfigFile.Read(
                Write(
                    "memopt.json",
                    """
                    { "data": { "train": [{ "source": "a", "weight": 0 },
                      { "weigth": 1, "source": "b", "format": "xml", "columns": { "text": "" } }, {}, 5], "eval": 7 } }
                    """
                ),
                [],
                checkFiles: false
            )
        );
        Assert.Equal(
            [
                "data.train.weight",
                "data.train.weigth",
                "data.train.format",
                "data.train.columns",
                "data.train",
                "data.train",
                "data.eval",
            ],
            fault.Problems.Select(problem => problem.Path)
        );
        Assert.Equal([1, 2, 2, 2, 2, 2, 2], fault.Problems.Select(problem => problem.Line));
        Assert.Contains(
            "keep one",
            Assert
                .Throws<UserFault>(() =>
                    RunConfigFile.Read(
                        Write("memopt.json", """{ "data": { "train": "a", "eval": "b", "evalShare": 0.1 } }"""),
                        [],
                        checkFiles: false
                    )
                )
                .Problems[0]
                .Message
        );
    }

    [Fact]
    public void Checkpoint_older_than_a_setting_resumes_with_its_default()
    {
        var config = RunConfigFile.Read(Write("memopt.json", "{}"), [], checkFiles: false);
        var old = JsonNode.Parse(config.Json)!;
        foreach (var key in new[] { "truncate", "evalShare", "cache" })
            Assert.True(old["data"]!.AsObject().Remove(key));
        Assert.Empty(PinnedSettings.Differences(old.ToJsonString(), config.Settings));
        Assert.Equal(
            [new Override("data.truncate", "\"right\"", "\"left\"")],
            PinnedSettings.Differences(
                old.ToJsonString(),
                config.Settings with
                {
                    Data = config.Settings.Data with { Truncate = Truncation.Left },
                }
            )
        );
    }
}
