using Memopt.Core.Tests;

namespace Memopt.Text.Tests;

public sealed class TokenStreamTests
{
    private static readonly Tokenizer tokenizer = Tokenizer.Load(Repository.Nano);

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Token_stream_gives_the_text_of_decoding_at_once(bool skipSpecial)
    {
        var random = new Random(5);
        var letters = "a é ß Ж 中文 😀 👩‍👩‍👧 \u0301 \n\t  ▁Ġ".EnumerateRunes().ToArray();
        for (var round = 0; round < 50; round++)
        {
            var text = string.Concat(Enumerable.Range(0, 40).Select(_ => letters[random.Next(letters.Length)]));
            // Tokens of a text, now and then any token between them: a special one, or half a character.
            var ids = tokenizer
                .Encode(text)
                .SelectMany(id => random.Next(20) == 0 ? [random.Next(tokenizer.VocabSize), id] : new[] { id })
                .Append(random.Next(tokenizer.VocabSize))
                .ToArray();
            var stream = new TokenStream(tokenizer, skipSpecial);
            var streamed = string.Concat(ids.Select(stream.Add)) + stream.End();
            Assert.Equal(tokenizer.Decode(ids, skipSpecial), streamed);
        }
    }

    /// <summary>A token costs no more at the end of a long text than at its beginning, also where most have no
    /// text.</summary>
    [Fact]
    public void Token_stream_of_a_long_answer_costs_no_more_per_token()
    {
        var word = tokenizer.Encode("noun and verb ");
        var none = Enumerable.Range(0, tokenizer.VocabSize).First(id => tokenizer.Decode([id]).Length == 0);
        int[] ids = [.. word, .. Enumerable.Repeat(none, 100)];
        var stream = new TokenStream(tokenizer);
        long Bytes(int rounds)
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var round = 0; round < rounds; round++)
            {
                foreach (var id in ids)
                    _ = stream.Add(id);
            }
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }

        _ = Bytes(10);
        var early = Bytes(20);
        _ = Bytes(200);
        Assert.InRange(Bytes(20), 0, early * 2);
    }
}
