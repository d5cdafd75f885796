using System.Text.Json.Nodes;
using Memopt.Trainer.Data;

namespace Memopt.Trainer.Tests.Data;

public sealed class TokenizerTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt-tokenizer-").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public void Nano_agrees_with_the_golden_tokens()
    {
        var tokenizer = Tokenizer.Load(Oracle.Nano);
        var rows = JsonNode.Parse(File.ReadAllText(Path.Combine(Oracle.Root, "tests/Trainer.Tests/Golden/tokens.golden.json")))!.AsArray();
        Assert.NotEmpty(rows);
        foreach (var row in rows)
        {
            var ids = row!["ids"]!.AsArray().Select(id => (int)id!).ToArray();
            Assert.Equal(ids, tokenizer.Encode((string)row["text"]!));
            Assert.Equal((string)row["decoded"]!, tokenizer.Decode(ids, skipSpecial: false));
        }
    }

    [Fact]
    public void Nano_agrees_with_the_oracle() => Compare(Oracle.Nano, 2500);

    private static void Compare(string model, int count)
    {
        var tokenizer = Tokenizer.Load(model);
        var rows = Oracle.Ask("tokens.mjs", "", Path.Combine(model, "tokenizer.json"), $"{count}", "7").AsArray();
        Assert.Equal(count, rows.Count);
        var wrong = new List<string>();
        foreach (var row in rows)
        {
            var text = (string)row!["text"]!;
            var expected = row["ids"]!.AsArray().Select(id => (int)id!).ToArray();
            var actual = tokenizer.Encode(text);
            if (!expected.SequenceEqual(actual)) wrong.Add($"{row["text"]!.ToJsonString()}\n  expected {string.Join(' ', expected.Take(40))}\n  actual   {string.Join(' ', actual.Take(40))}");
        }
        Assert.True(wrong.Count == 0, $"{wrong.Count} of {count} differ:\n{string.Join('\n', wrong.OrderBy(line => line.Length).Take(8))}");
    }
}
