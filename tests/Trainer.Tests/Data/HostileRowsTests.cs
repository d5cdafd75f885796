using System.IO.Compression;
using System.Text;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Data.Formats;

namespace Memopt.Trainer.Tests.Data;

/// <summary>Rows of strangers: without an end, nested without reason, with halves of characters.</summary>
public sealed class HostileRowsTests : IDisposable
{
    private static readonly Tokenizer Nano = Tokenizer.Load(TestBackend.Nano);

    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    /// <summary>A small file of a row that goes on for 70 MiB.</summary>
    [Theory]
    [InlineData("a.jsonl.gz", DataFormat.Jsonl, "{\"text\":\"", "8 MiB")]
    [InlineData("a.json.gz", DataFormat.Json, "[{\"text\":\"", "8 MiB")]
    [InlineData("a.csv.gz", DataFormat.Csv, "text\n\"", "8 Mi characters")]
    [InlineData("head.csv.gz", DataFormat.Csv, "text", "1 Mi characters")]
    public void Row_without_an_end_is_refused_by_its_length(string name, DataFormat format, string begin, string limit)
    {
        var path = Path.Combine(folder, name);
        using (var zip = new GZipStream(File.Create(path), CompressionLevel.Fastest))
        {
            zip.Write(Encoding.UTF8.GetBytes(begin));
            var block = new byte[1 << 20];
            block.AsSpan().Fill((byte)'a');
            for (var i = 0; i < 70; i++)
                zip.Write(block);
        }
        var fault = Assert.Throws<UserFault>(() => RowFile.Read(new(path, format, ".gz")).ToList());
        Assert.Contains(limit, fault.Found);
        Assert.Single(fault.Problems);
    }

    [Fact]
    public void Rows_that_cannot_be_read_are_reported_in_chunks_of_100()
    {
        var path = Path.Combine(folder, "a.csv");
        File.WriteAllText(path, "a,b\n" + string.Concat(Enumerable.Repeat("x\n", 250)));
        var chunks = RowFile.Read(new(path, DataFormat.Csv, null)).ToList();
        Assert.Equal([100, 100, 50], chunks.Select(chunk => chunk.Faults.Count));
    }

    public static TheoryData<string, string> Rows =>
        new()
        {
            { $"{{\"text\":{new string('[', 100_000)}", "not valid JSON" },
            { $"{{\"messages\":\"{string.Concat(Enumerable.Repeat("[", 100_000))}\"}}", "not a list" },
            {
                $"{{\"input_ids\":[{string.Concat(Enumerable.Repeat("1,", 4_200_000))}1]}}",
                "more than 4,194,304 values"
            },
            { "{\"messages\":[{\"role\":\"user\",\"role\":\"user\",\"content\":\"x\"}]}", "not valid JSON" },
            { "{\"messages\":\"[{\\\"role\\\":\\\"user\\\",\\\"role\\\":\\\"user\\\"}]\"}", "not a list" },
            {
                "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"y\"}],\"tools\":[{\"name\":\"\\ud800\"}]}",
                "half of a surrogate pair"
            },
            { "{\"text\":\"x\",\"\\udc00\":1}", "half of a surrogate pair" },
            { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":5}]}]}", "type" },
            { "{\"prompt\":\"a\",\"completion\":[1]}", "completion" },
            { "{\"text\":\"a\0b\"}", "not valid JSON" },
            { $"{{\"{new string('k', 100_000)}\":1}}", "kkk" },
            { "{\"input_ids\":[1e999]}", "not a list of integers" },
        };

    [Theory]
    [MemberData(nameof(Rows))]
    public void Hostile_row_is_reported_as_a_bad_row(string json, string said)
    {
        var model = new ChatEncoder(() => Nano, () => ChatTemplate.Load(TestBackend.Nano), new HashSet<int>());
        var fault = Assert.Throws<RowFault>(() =>
            new RowReader(model, new DataConfig()).Read(Encoding.UTF8.GetBytes(json), 1)
        );
        Assert.Contains(said, fault.Message);
        Assert.True(fault.Message.Length < 600);
    }
}
