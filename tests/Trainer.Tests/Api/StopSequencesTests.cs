namespace Memopt.Trainer.Tests.Api;

public sealed class StopSequencesTests
{
    /// <summary>However a text comes in parts, what is handed out is the text up to its first end.</summary>
    [Theory]
    [InlineData("one two three", "one two three")]
    [InlineData("one STOP two", "one ")]
    [InlineData("one STO two ST", "one STO two ST")]
    [InlineData("one STOS STOPS", "one STOS ")]
    [InlineData("one## STOP", "one")]
    [InlineData("STOP", "")]
    public void Stop_sequence_in_the_text_ends_the_output_before_it(string text, string expected)
    {
        for (var cut = 1; cut <= text.Length; cut++)
        {
            var stops = new StopSequences(["STOP", "##"]);
            var shown = string.Concat(text.Chunk(cut).Select(part => stops.Add(new(part)))) + stops.End();
            Assert.Equal((expected, expected != text), (shown, stops.Reached));
        }
    }

    [Fact]
    public void Stop_sequence_prefix_is_held_back_until_it_cannot_match()
    {
        var stops = new StopSequences(["STOP"]);
        Assert.Equal(["a ", "", "STa ", "STO"], [stops.Add("a S"), stops.Add("T"), stops.Add("a STO"), stops.End()]);
    }
}
