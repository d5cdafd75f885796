using System.IO.Compression;
using System.Text;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Trainer.Data.Formats;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Tests.Data;

/// <summary>Files of every format against the rows that DuckDB and Node made them of (Golden/data).</summary>
public sealed class RowFileTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private static string Golden(string name) =>
        Path.Combine(TestBackend.Repository, "tests", "Trainer.Tests", "Golden", "data", name);

    public void Dispose() => Directory.Delete(folder, recursive: true);

    private static List<(JsonNode? Row, int Line)> Read(string path, int chunkBytes = 1000, DataFormat? format = null)
    {
        var file = new DataFile(path, format ?? DataNames.Format(path)!.Value, DataNames.Compression(path));
        var rows = new List<(JsonNode?, int)>();
        foreach (var chunk in RowFile.Read(file, chunkBytes))
        {
            Assert.Empty(chunk.Faults);
            rows.AddRange(chunk.Rows.Select(row => (JsonNode.Parse(chunk[row]), chunk.FirstLine + row.Line)));
            chunk.Dispose();
        }
        return rows;
    }

    private List<(JsonNode? Row, int Line)> Text(string name, string text)
    {
        var path = Path.Combine(folder, name);
        File.WriteAllText(path, text);
        return Read(path);
    }

    /// <summary>A row without what Parquet does not tell apart: a value that is null and one that is not there, a null
    /// within a list and none.</summary>
    private static JsonNode Bare(JsonNode? row)
    {
        var bare = row!.DeepClone().AsObject();
        foreach (var (key, value) in bare.ToList())
        {
            if (value is JsonArray list)
                bare[key] = new JsonArray([.. list.Where(item => item is not null).Select(item => item!.DeepClone())]);
            if (bare[key] is null or JsonArray { Count: 0 })
                bare.Remove(key);
        }
        return bare;
    }

    [Theory]
    [InlineData("chats.jsonl", "chats.json.gz"), InlineData("chats.jsonl", "chats.parquet")]
    [InlineData("tokens.jsonl", "tokens.json"), InlineData("tokens.jsonl", "tokens.parquet")]
    [
        InlineData("alpaca.jsonl", "alpaca.json"),
        InlineData("alpaca.jsonl", "alpaca.parquet"),
        InlineData("alpaca.jsonl", "alpaca.jsonl.br")
    ]
    [
        InlineData("alpaca.jsonl", "alpaca.csv"),
        InlineData("alpaca.jsonl", "alpaca.tsv"),
        InlineData("alpaca.jsonl", "alpaca.csv.zst")
    ]
    public void Row_file_of_any_format_gives_the_rows_it_was_made_of(string original, string copy)
    {
        var expected = File.ReadLines(Golden(original)).Select(line => Bare(JsonNode.Parse(line))).ToList();
        Assert.True(expected.Count >= 8);
        foreach (var chunkBytes in new[] { 1, 700, 1 << 20 })
        {
            var found = Read(Golden(copy), chunkBytes).ConvertAll(row => Bare(row.Row));
            Assert.Equal(expected.Count, found.Count);
            Assert.All(
                expected.Zip(found),
                pair =>
                    Assert.True(
                        JsonNode.DeepEquals(pair.First, pair.Second),
                        $"{pair.First.ToJsonString()}\n{pair.Second.ToJsonString()}"
                    )
            );
        }
    }

    [Fact]
    public void Gzip_file_written_by_the_gzip_tool_is_read()
    {
        var path = Path.Combine(folder, "tokens.jsonl");
        File.Copy(Golden("tokens.jsonl"), path);
        using (var gzip = System.Diagnostics.Process.Start("gzip", path))
            gzip.WaitForExit();
        Assert.False(File.Exists(path));
        Assert.Equal(File.ReadLines(Golden("tokens.jsonl")).Count(), Read(path + ".gz").Count);
    }

    [
        Theory,
        InlineData("chats.json.gz", "a.jsonl.gz"),
        InlineData("alpaca.jsonl.br", "a.jsonl.br"),
        InlineData("alpaca.csv.zst", "a.jsonl.zst")
    ]
    public void Compressed_file_that_is_truncated_is_refused(string golden, string name)
    {
        var path = Path.Combine(folder, name);
        var bytes = File.ReadAllBytes(Golden(golden));
        foreach (var length in new[] { bytes.Length / 2, bytes.Length - 1 })
        {
            File.WriteAllBytes(path, bytes[..length]);
            Assert.Contains(
                "damaged",
                Assert
                    .Throws<UserFault>(() =>
                        RowFile
                            .Read(new(path, DataFormat.Jsonl, Path.GetExtension(path)))
                            .Sum(chunk => chunk.Rows.Count)
                    )
                    .Message
            );
        }
    }

    /// <summary>Lists in data pages of version 2, by arrow's Rust writer (parquet-wasm 0.8.0).</summary>
    [Fact]
    public void Parquet_file_with_an_unsupported_encoding_is_refused_with_that_reason()
    {
        var fault = Assert.Throws<UserFault>(() => Read(Golden("pages2.parquet")));
        Assert.Contains("encoding", fault.Message);
        Assert.Contains("messages/list/item/role", fault.Found);
        Assert.Contains("version 1", fault.Next);
    }

    /// <summary>Frames of zstd that state no size, as DuckDB 1.4 writes them; 2,000 rows of "row N".</summary>
    [Fact]
    public void Zstd_page_without_a_stated_size_is_read() =>
        Assert.Equal(
            Enumerable.Range(0, 2000).Select(row => $"row {row}"),
            Read(Golden("zstd-unsized.parquet")).Select(row => (string)row.Row!["text"]!)
        );

    /// <summary>Every third byte of a small file's metadata changed, and the file cut off there.</summary>
    [Fact]
    public void Parquet_file_with_damaged_metadata_is_read_or_refused()
    {
        var whole = File.ReadAllBytes(Golden("tokens.parquet"));
        var path = Path.Combine(folder, "a.parquet");
        var footer = BitConverter.ToInt32(whole, whole.Length - 8);
        var refused = 0;
        for (var at = whole.Length - 8 - footer; at < whole.Length; at += 3)
        {
            foreach (var value in new byte[] { 0x00, 0xFF, (byte)(whole[at] + 0x10) })
            {
                var bytes = (byte[])whole.Clone();
                bytes[at] = value;
                File.WriteAllBytes(path, bytes);
                refused += Record.Exception(() => Read(path)) is UserFault ? 1 : 0;
            }
            File.WriteAllBytes(path, whole[..at]);
            Assert.Throws<UserFault>(() => Read(path));
        }
        Assert.InRange(refused, footer / 3, footer + 8);
    }

    [Fact]
    public void Parquet_file_with_damaged_bytes_at_its_end_is_refused()
    {
        var bytes = File.ReadAllBytes(Golden("chats.parquet"));
        bytes.AsSpan(bytes.Length - 8 - BitConverter.ToInt32(bytes, bytes.Length - 8), 40).Fill(0xee);
        var path = Path.Combine(folder, "a.parquet");
        File.WriteAllBytes(path, bytes);
        Assert.Contains("damaged", Assert.Throws<UserFault>(() => Read(path)).Message);
    }

    [Fact]
    public void Line_numbers_are_those_that_an_editor_shows()
    {
        Assert.Equal([2, 5], Text("a.jsonl", "\n{\"a\":1}\r\n  \n\n{\"a\":2}").Select(row => row.Line));
        Assert.Equal(
            [3, 4, 6],
            Text("a.json", "{\"version\": \"[1]\",\n \"data\": [\n  {\"a\":\n1}, {\n\"a\":\"]},{\\\"\"},\n[3] ]\n}\n")
                .Select(row => row.Line)
                .Order()
        );
        Assert.Equal([2, 4], Text("a.csv", "text,b\n\"x\ny\",1\nz,2\n").Select(row => row.Line));
        Assert.Equal("x\ny", (string?)Text("b.csv", "text;b\n\"x\ny\";1,5\n")[0].Row!["text"]);
    }

    [Fact]
    public void Json_file_may_hold_lines()
    {
        Assert.Equal(2, Text("a.json", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n").Count);
        Assert.Equal("a", (string?)Assert.Single(Text("b.json", "{\"text\":\"a\"}")).Row!["text"]);
        Assert.Equal(2, (int?)Assert.Single(Text("c.json", "{\"rows\":[{\"a\":2}]}")).Row!["a"]);
        Assert.Equal(2, Text("d.json", "\uFEFF [ {\"a\":1} ,{\"a\":2}]").Count);
        Assert.Empty(Text("e.json", "[]"));
    }

    [Fact]
    public void Json_list_or_objects_over_several_lines_are_read_whatever_the_file_name()
    {
        foreach (var name in new[] { "a.json", "a.jsonl", "a.ndjson" })
        {
            Assert.Equal(
                [(1, 2), (2, 3)],
                Text(name, "[\n{\"a\":1},\n{\"a\":2}\n]").Select(row => ((int)row.Row!["a"]!, row.Line))
            );
            // As jq writes them.
            Assert.Equal(
                ["x}", "y"],
                Text(name, "\uFEFF{\n \"text\": \"x}\"\n}\n{\n \"text\": \"y\"\n}\n")
                    .Select(row => (string?)row.Row!["text"])
            );
            Assert.Equal([1, 4], Text(name, "{\n \"text\": \"x\"\n}\n{\n \"text\": \"y\"\n}").Select(row => row.Line));
            Assert.Equal("x", (string?)Assert.Single(Text(name, "{\n \"text\": \"x\"\n}\n")).Row!["text"]);
            Assert.Equal([1, 2], Text(name, "{\"a\":1} {\"a\":2}").Select(row => (int)row.Row!["a"]!));
            Assert.Equal(
                3,
                (int?)
                    Assert
                        .Single(
                            Text(
                                name,
                                "{\n \"version\": [1],\n\"rows\": [{\"a\": 3}]}".Replace(" \"version\": [1],\n", "")
                            )
                        )
                        .Row!["a"]
            );
        }
    }

    [Theory]
    [InlineData("a.jsonl", "[{\"a\":1}\n{\"a\":2}", "ends in the middle")]
    [InlineData("a.jsonl", "{\n\"a\":1\n}\n{\n\"a\":", "ends in the middle")]
    [InlineData("a.json", "[{\"a\":1}", "ends in the middle")]
    [InlineData("a.json", "[{\"a\":\"1]", "ends in the middle")]
    [InlineData("a.json", "[1]]", "closes nothing")]
    [InlineData("a.json", "{\"a\":[1],\n\"b\":[2]}", "line 2: a second list")]
    [InlineData("a.json", "{\"a\":1}", "without a list")]
    [InlineData("a.json", "[{\"a\":1}]\nx", "line 2: more behind the end of the list")]
    [InlineData("a.json", "{\"rows\":[{\"a\":1}]}, 2", "more behind the end of the object")]
    [InlineData("a.json", "text", "neither a list nor an object")]
    [InlineData("a.parquet", "PAR1 and more", "")]
    [InlineData("a.jsonl.zst", "no zstd", "")]
    [InlineData("a.jsonl.br", "no brotli at all", "")]
    [InlineData("a.csv", "a,a\n1,2\n", "")]
    [InlineData("a.parquet.gz", "x", "read from its end")]
    public void File_whose_content_contradicts_its_name_is_refused(string name, string text, string found)
    {
        var fault = Assert.Throws<UserFault>(() => Text(name, text));
        Assert.Contains(Path.Combine(folder, name), fault.Message);
        Assert.Contains(found, fault.Found);
        Assert.NotNull(fault.Next);
    }

    [
        Theory,
        InlineData("a.jsonl", "{\"text\":\"\u00ff\"}"),
        InlineData("a.json", "[{\"text\":\"\u00ff\"}]"),
        InlineData("a.csv", "text\n\u00ff\n")
    ]
    public void Bytes_that_are_not_UTF_8_are_refused(string name, string text)
    {
        File.WriteAllBytes(Path.Combine(folder, name), Encoding.Latin1.GetBytes(text));
        Assert.Contains("not UTF-8", Assert.Throws<UserFault>(() => Read(Path.Combine(folder, name))).Message);
    }

    [Fact]
    public void Table_row_with_another_number_of_columns_is_a_bad_row()
    {
        var path = Path.Combine(folder, "a.csv");
        File.WriteAllText(path, "prompt,completion\na,b\n\nc\nd,e,f\n");
        using var chunk = Assert.Single(RowFile.Read(new(path, DataFormat.Csv, null)));
        Assert.Single(chunk.Rows);
        Assert.Equal([(4, "1 values for 2 columns"), (5, "3 values for 2 columns")], chunk.Faults);
    }

    [Fact]
    public void Table_quote_that_is_never_closed_does_not_swallow_the_rest()
    {
        var path = Path.Combine(folder, "a.csv");
        File.WriteAllText(path, "prompt,completion\na,b \"\"\nc,\"d\ne,f\n");
        using var chunk = Assert.Single(RowFile.Read(new(path, DataFormat.Csv, null)));
        Assert.Single(chunk.Rows);
        Assert.Equal([(3, "a quote that is never closed")], chunk.Faults);
    }

    [Fact]
    public void Table_quote_within_a_value_does_not_join_two_rows()
    {
        var path = Path.Combine(folder, "a.csv");
        File.WriteAllText(
            path,
            "prompt,completion\na \"b\" c,\"d \"\"e\"\", f\"\n\"\",\"\"\"g\"\"\"\n5\" pipe,x\n6\" pipe,y\n"
        );
        using var chunk = Assert.Single(RowFile.Read(new(path, DataFormat.Csv, null)));
        Assert.Equal(2, chunk.Rows.Count);
        Assert.Equal([(4, "a quote within a value that is not in quotes")], chunk.Faults);
    }

    [Theory]
    [InlineData("a.jsonl.gz", "x")]
    [InlineData("a.json.gz", "[\"x")]
    [InlineData("a.csv.gz", "text\n\"x")]
    [InlineData("a.tsv.gz", "text\nx")]
    public void Compressed_row_without_end_in_a_file_of_some_KB_is_refused(string name, string beginning)
    {
        var path = Path.Combine(folder, name);
        using (var gzip = new GZipStream(File.Create(path), CompressionLevel.Fastest))
        {
            gzip.Write(Encoding.UTF8.GetBytes(beginning));
            var letters = Enumerable.Repeat((byte)'x', 1 << 20).ToArray();
            for (var i = 0; i < 66; i++)
                gzip.Write(letters);
        }
        var file = new DataFile(path, DataNames.Format(path)!.Value, DataNames.Compression(path));
        Assert.Throws<UserFault>(() => RowFile.Read(file).Count());
    }
}
