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
    public void What_is_handed_out_ends_before_the_first_end(string text, string expected)
    {
        for (var cut = 1; cut <= text.Length; cut++)
        {
            var stops = new StopSequences(["STOP", "##"]);
            var shown = string.Concat(text.Chunk(cut).Select(part => stops.Add(new(part)))) + stops.End();
            Assert.Equal((expected, expected != text), (shown, stops.Reached));
        }
    }

    [Fact]
    public void What_may_become_an_end_is_kept_back_until_it_does_not()
    {
        var stops = new StopSequences(["STOP"]);
        Assert.Equal(["a ", "", "STa ", "STO"], [stops.Add("a S"), stops.Add("T"), stops.Add("a STO"), stops.End()]);
    }
}
