using Memopt.Text;
using Memopt.Tool.Commands;

namespace Memopt.Tool.Tests;

public sealed class InferTests
{
    private static readonly Tokenizer tokenizer = Tokenizer.Load(
        Path.Combine(Cli.Repository, "samples", "word-class", "model")
    );

    [Fact]
    public void Infer_ending_within_a_character_writes_no_part_of_it()
    {
        var tokens = tokenizer.Encode("a noun 😀");
        Assert.EndsWith("\uFFFD", tokenizer.Decode(tokens[..^1])); // so the last token is a part of the character
        Assert.Equal("a noun ", Written(tokens[..^1]));
        Assert.Equal("a noun 😀", Written(tokens));
    }

    private static string Written(int[] tokens)
    {
        using var output = new StringWriter();
        Assert.Equal(tokens, InferCommand.Answer(tokens, tokenizer, output, CancellationToken.None));
        return output.ToString();
    }
}
