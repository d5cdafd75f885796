using System.Security.Cryptography;
using Memopt.Trainer.Data;

namespace Memopt.Trainer.Tests.Data;

public sealed class DatasetTests : IDisposable
{
    private const int N = Row.NoLoss;

    private static readonly Tokenizer Nano = Tokenizer.Load(Oracle.Nano);

    private readonly string file = Path.GetTempFileName();

    public void Dispose() => File.Delete(file);

    private Dataset Load(string text, int maxLength = 1024, TrainOn trainOn = TrainOn.Assistant, ChatTemplate? template = null)
    {
        File.WriteAllText(file, text);
        return Dataset.Load(file, () => Nano, () => template ?? ChatTemplate.Load(Oracle.Nano), new() { MaxLength = maxLength, TrainOn = trainOn }, new HashSet<int> { Nano.Id("<|im_end|>")!.Value });
    }

    private static string Trained(Row row)
    {
        Assert.All(row.Labels.Zip(row.Ids), pair => Assert.True(pair.First == N || pair.First == pair.Second));
        return Nano.Decode([.. row.Labels.Where(label => label != N)], skipSpecial: false);
    }

    [Fact]
    public void Only_the_assistants_turns_carry_loss_with_their_end_and_without_the_newline()
    {
        var row = Assert.Single(Load("""{"messages":[{"role":"system","content":"s"},{"role":"user","content":"noun?"},{"role":"assistant","content":"noun"},{"role":"user","content":[{"type":"text","text":"x"}]},{"role":"assistant","content":"verb"}]}""").Rows);
        Assert.Equal("noun<|im_end|>verb<|im_end|>", Trained(row));
        Assert.Equal("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nnoun?<|im_end|>\n<|im_start|>assistant\nnoun<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\nverb<|im_end|>\n", Nano.Decode(row.Ids, skipSpecial: false));
    }

    [Fact]
    public void Generation_marks_decide_and_the_end_of_turn_after_them_is_trained()
    {
        var template = ChatTemplate.Parse("{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}");
        var row = Assert.Single(Load("""{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"noun"}]}""", template: template).Rows);
        Assert.Equal("noun<|im_end|>", Trained(row));
    }

    [Fact]
    public void All_tokens_carry_loss_when_asked()
    {
        var row = Assert.Single(Load("""{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"noun"}]}""", trainOn: TrainOn.All).Rows);
        Assert.Equal(row.Ids, row.Labels);
    }

    [Fact]
    public void A_template_that_rewrites_earlier_turns_is_refused()
    {
        var template = ChatTemplate.Parse("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}");
        var fault = Assert.Throws<UserFault>(() => Load("""{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}""", template: template));
        Assert.Contains($"{file}:1: ", fault.Found);
        Assert.Contains("message 2", fault.Found);
    }

    [Fact]
    public void Completions_and_texts_end_with_the_end_token()
    {
        var rows = Load("{\"prompt\":\"2+2=\",\"completion\":\" four\"}\n\n{\"text\":\"plain text\"}\n").Rows;
        Assert.Equal(" four<|im_end|>", Trained(rows[0]));
        Assert.Equal("2+2= four<|im_end|>", Nano.Decode(rows[0].Ids, skipSpecial: false));
        Assert.Equal("plain text<|im_end|>", Trained(rows[1]));
        Assert.Equal([1, 3], rows.Select(row => row.Line));
    }

    [Fact]
    public void Tokenized_rows_need_no_tokenizer()
    {
        File.WriteAllText(file, "{\"input_ids\":[5,6,7,0],\"labels\":[-100,6,7,-100],\"attention_mask\":[1,1,1,0]}\n{\"input_ids\":[1,2]}\n");
        var data = Dataset.Load(file, () => throw new InvalidOperationException(), () => throw new InvalidOperationException(), new(), new HashSet<int>());
        Assert.Equal([5, 6, 7], data.Rows[0].Ids);
        Assert.Equal([N, 6, 7], data.Rows[0].Labels);
        Assert.Equal([1, 2], data.Rows[1].Labels);
        Assert.Equal((5, 3, 0), (data.Tokens, data.Trained, data.Truncated));
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(file))), data.Hash);
    }

    [Fact]
    public void Long_rows_are_cut_at_the_end_and_counted()
    {
        var data = Load("{\"input_ids\":[1,2,3,4]}\n{\"input_ids\":[1,2]}\n", maxLength: 3);
        Assert.Equal([1, 2, 3], data.Rows[0].Ids);
        Assert.Equal(1, data.Truncated);
    }

    [Theory]
    [InlineData("{\"messages\":[", "not valid JSON")]
    [InlineData("[1]", "not a JSON object")]
    [InlineData("{\"a\":1,\"a\":2}", "not valid JSON")]
    [InlineData("{\"words\":1}", "it has words")]
    [InlineData("{\"messages\":[]}", "messages")]
    [InlineData("{\"messages\":[{\"content\":\"x\"}]}", "no role")]
    [InlineData("{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "content is not a string")]
    [InlineData("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}", "not text")]
    [InlineData("{\"messages\":[{\"role\":\"user\",\"content\":\"only me\"}]}", "carries loss")]
    [InlineData("{\"prompt\":\"a\",\"completion\":null}", "completion is not a string")]
    [InlineData("{\"text\":\"\\ud800\"}", "text")]
    [InlineData("{\"input_ids\":[1,2],\"labels\":[1]}", "differ in length")]
    [InlineData("{\"input_ids\":[1,2.5]}", "integers")]
    [InlineData("{\"input_ids\":[1,-2]}", "negative")]
    [InlineData("{\"input_ids\":[1,2],\"labels\":[2,-100]}", "carries loss")]
    [InlineData("{\"input_ids\":[1,2],\"attention_mask\":[0,1]}", "attention_mask")]
    [InlineData("{\"input_ids\":[1,2,3,4],\"labels\":[-100,-100,-100,4]}", "maxLength = 3")]
    public void A_bad_row_is_named(string row, string found)
    {
        var fault = Assert.Throws<UserFault>(() => Load("{\"input_ids\":[1,2]}\n" + row, maxLength: 3));
        Assert.Contains($"{file}:2: ", fault.Found);
        Assert.Contains(found, fault.Found);
        Assert.Equal(2, Assert.Single(fault.Problems).Line);
    }

    [Fact]
    public void Bad_rows_are_told_together_up_to_twenty()
    {
        var fault = Assert.Throws<UserFault>(() => Load(string.Concat(Enumerable.Repeat("{}\n", 30))));
        Assert.Equal(20, fault.Problems.Count);
    }

    [Fact]
    public void Empty_and_missing_files_are_told()
    {
        Assert.Contains("no rows", Assert.Throws<UserFault>(() => Load(" \n")).Message);
        File.Delete(file);
        Assert.Contains(file, Assert.Throws<UserFault>(() => Dataset.Load(file, () => Nano, () => null, new(), new HashSet<int>())).Message);
    }
}
