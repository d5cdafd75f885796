using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Core.Tests;
using Memopt.Text.Tokenizers;

namespace Memopt.Text.Tests;

/// <summary>Tokenizers that were made to crash, to hang or to fill the memory.</summary>
public sealed class HostileTokenizerTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    private const string Split = """{"type":"Split","pattern":{"Regex":"PATTERN"},"behavior":"Isolated"}""";

    [Theory]
    [InlineData("pre_tokenizer", "pretokenizers", """{"type":"Whitespace"}""")]
    [InlineData("normalizer", "normalizers", """{"type":"NFC"}""")]
    [InlineData("decoder", "decoders", """{"type":"Fuse"}""")]
    [InlineData("post_processor", "processors", """{"type":"ByteLevel"}""")]
    public void Sequence_of_100_000_steps_is_refused(string part, string list, string step)
    {
        var flat = $$"""{"type":"Sequence","{{list}}":[{{string.Join(",", Enumerable.Repeat(step, 100_000))}}]}""";
        Assert.Contains("more than 100 steps", Load(part, flat).Message);
        // Of parts within parts, all are counted.
        var few = $$"""{"type":"Sequence","{{list}}":[{{string.Join(",", Enumerable.Repeat(step, 20))}}]}""";
        Assert.Contains(
            "more than 100 steps",
            Load(part, $$"""{"type":"Sequence","{{list}}":[{{string.Join(",", Enumerable.Repeat(few, 5))}}]}""").Message
        );
    }

    [Theory]
    [InlineData("[", "a", "]", 60_000)]
    [InlineData("(", "a", ")", 60_000)]
    [InlineData("(?:a|", "b", ")*", 60_000)]
    [InlineData("[", "a", "]", 300)]
    [InlineData("(", "a", ")", 300)]
    public void Pattern_nested_beyond_the_limit_is_refused(string open, string inner, string close, int depth)
    {
        var pattern =
            string.Concat(Enumerable.Repeat(open, depth)) + inner + string.Concat(Enumerable.Repeat(close, depth));
        Assert.Contains("regular expression", Load("pre_tokenizer", Split.Replace("PATTERN", pattern)).Message);
    }

    [Theory]
    [InlineData("[", "a", "]")]
    [InlineData("(", "a", ")")]
    public void Pattern_nested_within_the_limit_is_accepted(string open, string inner, string close)
    {
        var pattern =
            string.Concat(Enumerable.Repeat(open, 200)) + inner + string.Concat(Enumerable.Repeat(close, 200));
        Assert.Equal([(1, 2), (3, 4)], new CodePointRegex(pattern).Matches("bab" + "ab", null));
    }

    // What Oniguruma and every engine of leftmost-first matches gives, of which one that goes back needs 2^40 steps
    // here.
    [Theory]
    [InlineData("(a+)+$")]
    [InlineData("(a|a)*b$")]
    [InlineData("(a|aa)+$")]
    [InlineData("(?:a*)*c")]
    public void Pattern_that_makes_others_backtrack_runs_in_linear_time(string pattern)
    {
        var text = new string('a', 40) + "!";
        Assert.Empty(new CodePointRegex(pattern).Matches(text, null));
    }

    [Fact]
    public void Pattern_with_lookaround_that_backtracks_ends_with_a_fault_that_quotes_it()
    {
        var regex = new CodePointRegex(@"(?:\w|\w\w)+(?=!)", TimeSpan.FromMilliseconds(50));
        var fault = Assert.Throws<UserFault>(() => regex.Matches(new string('a', 60), null));
        Assert.Contains("takes too long", fault.Message);
        Assert.Contains(@"(?:\w|\w\w)+(?=!)", fault.Found);
    }

    [Fact]
    public void Matches_that_are_quick_but_many_end_at_the_budget()
    {
        var regex = new CodePointRegex(@"\w(?=\w*!)|\w", TimeSpan.FromMinutes(1));
        var budget = new Budget("x", TimeSpan.FromMilliseconds(50), long.MaxValue);
        Assert.Throws<UserFault>(() => regex.Matches(new string('a', 200_000), budget));
    }

    [Theory]
    [InlineData("""{"type":"Replace","pattern":{"String":"a"},"content":"aa"}""")]
    [InlineData("""{"type":"Replace","pattern":{"Regex":"a"},"content":"aa"}""")]
    [InlineData("""{"type":"ByteLevel"}""")]
    public void Normalizers_that_each_double_the_text_end_at_the_budget(string step)
    {
        var text = $$"""{"type":"Sequence","normalizers":[{{string.Join(",", Enumerable.Repeat(step, 40))}}]}""";
        var fault = Assert.Throws<UserFault>(() => Change("normalizer", text).Encode("banana größe"));
        Assert.Contains("costs more than", fault.Message);
        Assert.Contains("tokenizer.json", fault.Message);
        Assert.Contains("memory", fault.Found);
    }

    [Fact]
    public void Decoders_that_each_double_the_text_end_at_the_budget()
    {
        var step = """{"type":"Replace","pattern":{"String":"a"},"content":"aa"}""";
        var tokenizer = Change(
            "decoder",
            $$"""{"type":"Sequence","decoders":[{{string.Join(",", Enumerable.Repeat(step, 40))}}]}"""
        );
        Assert.Contains("memory", Assert.Throws<UserFault>(() => tokenizer.Decode(tokenizer.Encode("banana"))).Found);
    }

    [Fact]
    public void Replacement_far_longer_than_the_text_ends_at_the_budget()
    {
        var tokenizer = Change(
            "normalizer",
            $$"""{"type":"Replace","pattern":{"String":"a"},"content":"{{new string('b', 1_000_000)}}"}"""
        );
        Assert.Contains("memory", Assert.Throws<UserFault>(() => tokenizer.Encode(new string('a', 1_000))).Found);
    }

    [Fact]
    public void Post_processor_template_with_too_many_tokens_is_refused()
    {
        const string template = """
            {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],
             "special_tokens":{"x":{"id":"x","ids":[IDS],"tokens":["x"]}}}
            """;
        var part = template.Replace("IDS", string.Join(",", Enumerable.Repeat("1", 2_000)));
        Assert.Contains("more than 1000 tokens", Load("post_processor", part).Message);
    }

    // By WordPiece's definition: the longest word of the vocabulary each time.
    [Fact]
    public void Word_of_a_million_letters_is_encoded_in_time_linear_in_its_length()
    {
        var tokenizer = Change(
            "model",
            """{"type":"WordPiece","unk_token":"?","max_input_chars_per_word":2000000000,"vocab":{"?":0,"a":1,"##a":2,"##aaaa":3}}""",
            "pre_tokenizer",
            "normalizer",
            "post_processor",
            "decoder",
            "added_tokens"
        );
        var ids = tokenizer.Encode(new string('a', 1_000_003));
        Assert.Equal([1, .. Enumerable.Repeat(3, 250_000), 2, 2], ids);
    }

    [Fact]
    public void Vocabulary_that_takes_more_memory_than_its_file_justifies_is_refused()
    {
        // Each word is a path of a thousand nodes of its own.
        var words = Enumerable.Range(0, 12_000).Select(i => $"[\"{i:D5}{new string('a', 1_000)}\",0]");
        var fault = Load("model", $$"""{"type":"Unigram","unk_id":0,"vocab":[{{string.Join(",", words)}}]}""");
        Assert.Contains("memory", fault.Found);
    }

    [Fact]
    public void Cancellation_ends_loading_and_encoding()
    {
        using var stop = new CancellationTokenSource();
        var tokenizer = Tokenizer.Load(Repository.Nano, stop.Token);
        stop.Cancel();
        Assert.Throws<OperationCanceledException>(() => Tokenizer.Load(Repository.Nano, stop.Token));
        Assert.Throws<OperationCanceledException>(() => tokenizer.Encode(string.Concat(Enumerable.Range(0, 10_000))));
    }

    [Theory]
    [InlineData("""{"added_tokens":[{"id":1,"content":null}],"model":{"type":"WordLevel","vocab":{"a":1}}}""")]
    [InlineData("""{"model":{"type":"BPE","vocab":{"a":1},"merges":[null]}}""")]
    [InlineData("""{"model":{"type":"BPE","vocab":{"a":1},"merges":[[null,null]]}}""")]
    [InlineData("""{"model":{"type":"Unigram","vocab":[[null,1]]}}""")]
    [InlineData("""{"model":{"type":"WordLevel","vocab":{"a":99999999999}}}""")]
    [InlineData("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[")]
    [InlineData("null")]
    public void Tokenizer_file_that_is_malformed_is_a_fault(string json)
    {
        File.WriteAllText(Path.Combine(folder, "tokenizer.json"), json);
        Assert.Throws<UserFault>(() => Tokenizer.Load(folder));
    }

    [Theory]
    [InlineData("""{"eos_token":"a","eos_token":"b"}""")]
    [InlineData("""{"eos_token":"\ud800"}""")]
    public void Tokenizer_config_that_is_no_JSON_object_is_a_fault(string json)
    {
        File.WriteAllText(Path.Combine(folder, "tokenizer_config.json"), json);
        Assert.Contains("tokenizer_config.json", Assert.Throws<UserFault>(() => TokenizerConfig.Read(folder)).Message);
    }

    private UserFault Load(string part, string json) => Assert.Throws<UserFault>(() => Change(part, json));

    private Tokenizer Change(string part, string json, params string[] without)
    {
        var all = JsonNode.Parse(File.ReadAllText(Path.Combine(Repository.Nano, "tokenizer.json")))!.AsObject();
        foreach (var name in without.Append(part))
            all.Remove(name);
        // As text: a tree of a hundred thousand steps is slow to make.
        File.WriteAllText(
            Path.Combine(folder, "tokenizer.json"),
            all.ToJsonString(new JsonSerializerOptions { WriteIndented = false })[..^1] + $",\"{part}\":{json}}}"
        );
        return Tokenizer.Load(folder);
    }
}
