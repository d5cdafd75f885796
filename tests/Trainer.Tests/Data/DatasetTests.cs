using System.Security.Cryptography;
using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;

namespace Memopt.Trainer.Tests.Data;

public sealed class DatasetTests : IDisposable
{
    private const int N = Row.NoLoss;

    private static readonly Tokenizer Nano = Tokenizer.Load(TestBackend.Nano);

    private readonly string file = Path.GetTempFileName();

    public void Dispose() => File.Delete(file);

    private Dataset Load(
        string text,
        int maxLength = 1024,
        TrainOn trainOn = TrainOn.Assistant,
        ChatTemplate? template = null
    )
    {
        File.WriteAllText(file, text);
        return Dataset.Load(
            file,
            () => Nano,
            () => template ?? ChatTemplate.Load(TestBackend.Nano),
            new() { MaxLength = maxLength, TrainOn = trainOn },
            new HashSet<int> { Nano.Id("<|im_end|>")!.Value }
        );
    }

    private static string Trained(Row row)
    {
        Assert.All(row.Labels.Zip(row.Ids), pair => Assert.True(pair.First == N || pair.First == pair.Second));
        return Nano.Decode([.. row.Labels.Where(label => label != N)], skipSpecial: false);
    }

    [Fact]
    public void Assistant_turns_alone_carry_loss_with_their_end_token_and_without_the_newline()
    {
        var row = Assert.Single(
            Load(
                """{"messages":[{"role":"system","content":"s"},{"role":"user","content":"noun?"},{"role":"assistant","content":"noun"},{"role":"user","content":[{"type":"text","text":"x"}]},{"role":"assistant","content":"verb"}]}"""
            ).Rows
        );
        Assert.Equal("noun<|im_end|>verb<|im_end|>", Trained(row));
        Assert.Equal(
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nnoun?<|im_end|>\n<|im_start|>assistant\n"
                + "noun<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\nverb<|im_end|>\n",
            Nano.Decode(row.Ids, skipSpecial: false)
        );
    }

    [Fact]
    public void Turn_that_only_calls_tools_keeps_its_content_none_or_missing()
    {
        var template = ChatTemplate.Parse(
            "{% for m in messages %}{{ m.role }}:{{ 'none' if m.content is none else m.content if m.content is "
                + "defined else 'missing' }}\n{% endfor %}"
        );
        const string call = "\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{}}}]";
        var rows = Load(
            $$"""{"messages":[{"role":"user","content":null},{{{call}},"content":null},{{{call}}},{{{call}},"content":"x"}]}""",
            trainOn: TrainOn.All,
            template: template
        ).Rows;
        Assert.Equal(
            "user:\nassistant:none\nassistant:missing\nassistant:x\n",
            Nano.Decode(Assert.Single(rows).Ids, skipSpecial: false)
        );
    }

    [Fact]
    public void ShareGPT_turns_may_call_tools_and_spell_roles_either_way()
    {
        var template = ChatTemplate.Parse(
            "{% for m in messages %}{{ m.role }}:{{ m.tool_calls | tojson if m.tool_calls else m.content }} {% "
                + "endfor %}"
        );
        var rows = Load(
            """
            {"conversations":[{"from":"human","value":"q"},{"from":"function_call","value":"{\"name\": \"f\", \"arguments\": {\"a\": 1}}"},{"from":"observation","value":"3"},{"from":"gpt","value":"noun"}],"tools":"[]"}
            {"conversations":[{"role":"human","content":"q"},{"role":"GPT","content":"verb"}]}
            {"conversations":[{"from":"user","value":"q"},{"from":"function_call","value":"adverb"}]}
            """,
            trainOn: TrainOn.All,
            template: template
        ).Rows;
        Assert.Equal(
            """user:q assistant:[{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}] tool:3 assistant:noun """,
            Nano.Decode(rows[0].Ids, skipSpecial: false)
        );
        Assert.Equal(
            ["user:q assistant:verb ", "user:q assistant:adverb "],
            rows.Skip(1).Select(row => Nano.Decode(row.Ids, skipSpecial: false))
        );
    }

    [Theory]
    [InlineData("", "message 3 only calls tools, and the model's chat template does not take that: ")]
    [InlineData(
        "{{ m.tool_calls | default([]) | length }}",
        "message 3 has no content and the model's chat template needs one: "
    )]
    public void Template_that_needs_content_names_the_message_without(string calls, string expected)
    {
        var template = ChatTemplate.Parse(
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
                + calls
                + "{{ '<|im_end|>\n' }}{% endfor %}"
        );
        Problem Told(string content) =>
            Assert.Single(
                Assert
                    .Throws<UserFault>(() =>
                        Load(
                            $$"""

                            {"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"assistant"{{content}},"tool_calls":[{"type":"function"}]}]}
                            """,
                            template: template
                        )
                    )
                    .Problems
            );
        foreach (var content in (string[])["", ",\"content\":null"])
        {
            var problem = Told(content);
            Assert.Equal((file, 2), (problem.File, problem.Line));
            Assert.StartsWith(expected, problem.Message);
        }
    }

    [Fact]
    public void Turn_ended_by_the_next_turns_mark_trains_that_mark()
    {
        var template = ChatTemplate.Parse(
            "{% for m in messages %}{{ '<|im_end|>' if m.role == 'user' else '!' }}{{ m.content }}{% endfor %}{{ "
                + "'!' if add_generation_prompt }}"
        );
        var rows = Load(
            """{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"noun"},{"role":"user","content":"r"},{"role":"assistant","content":"verb"}]}""",
            template: template
        ).Rows;
        Assert.Equal("noun<|im_end|>verb", Trained(Assert.Single(rows)));
    }

    [Fact]
    public void Generation_marks_select_the_loss_and_the_end_of_turn_after_them()
    {
        var template = ChatTemplate.Parse(
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ "
                + "m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        );
        var row = Assert.Single(
            Load(
                """{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"noun"}]}""",
                template: template
            ).Rows
        );
        Assert.Equal("noun<|im_end|>", Trained(row));
    }

    [Fact]
    public void Row_trained_on_all_tokens_carries_loss_on_each()
    {
        var row = Assert.Single(
            Load(
                """{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"noun"}]}""",
                trainOn: TrainOn.All
            ).Rows
        );
        Assert.Equal(row.Ids, row.Labels);
    }

    [Fact]
    public void Template_that_rewrites_earlier_turns_is_refused()
    {
        var template = ChatTemplate.Parse("{% for m in messages | reverse %}{{ m.content }}{% endfor %}");
        var fault = Assert.Throws<UserFault>(() =>
            Load(
                """{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}""",
                template: template
            )
        );
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

    [Theory, InlineData("{{ m.content }}"), InlineData("{% generation %}{{ m.content }}{% endgeneration %}")]
    public void Prompt_and_completion_of_messages_form_a_chat_with_loss_on_the_completion(string said)
    {
        const string head =
            "{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"noun?\"},{\"role\":\"assistant\",\"content\":\"noun\"},{\"role\":\"user\",\"content\":\"x\"}";
        const string tail =
            "{\"role\":\"assistant\",\"content\":\"verb\"},{\"role\":\"user\",\"content\":\"y\"},{\"role\":\"assistant\",\"content\":\"end\"}";
        var template = ChatTemplate.Parse(
            $"{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{% if m.role == 'assistant' %}}{said}{{% "
                + $"else %}}{{{{ m.content }}}}{{% endif %}}<|im_end|>\n{{% endfor %}}{{% if add_generation_prompt "
                + $"%}}<|im_start|>assistant\n{{% endif %}}"
        );
        string Quoted(string turns) => System.Text.Json.JsonSerializer.Serialize($"[{turns}]"); // as in a table
        var rows = Load(
            $$"""
            {"messages":[{{head}},{{tail}}]}
            {"prompt":[{{head}}],"completion":[{{tail}}]}
            {"prompt":{{Quoted(head)}},"completion":{{Quoted(tail)}}}
            """,
            template: template
        ).Rows;
        Assert.Equal("noun<|im_end|>verb<|im_end|>end<|im_end|>", Trained(rows[0]));
        foreach (var row in rows.Skip(1))
        {
            Assert.Equal(rows[0].Ids, row.Ids);
            Assert.Equal("verb<|im_end|>end<|im_end|>", Trained(row));
        }
    }

    [Fact]
    public void Prompt_that_looks_like_a_list_is_text() =>
        Assert.Equal("[3]<|im_end|>", Trained(Assert.Single(Load("""{"prompt":"[1, 2]","completion":"[3]"}""").Rows)));

    [Fact]
    public void Tokenized_rows_need_no_tokenizer()
    {
        File.WriteAllText(
            file,
            "{\"input_ids\":[5,6,7,0],\"labels\":[-100,6,7,-100],\"attention_mask\":[1,1,1,0]}\n{\"input_ids\":[1,2]}\n"
        );
        var data = Dataset.Load(
            file,
            () => throw new InvalidOperationException(),
            () => throw new InvalidOperationException(),
            new(),
            new HashSet<int>()
        );
        Assert.Equal([5, 6, 7], data.Rows[0].Ids);
        Assert.Equal([N, 6, 7], data.Rows[0].Labels);
        Assert.Equal([1, 2], data.Rows[1].Labels);
        Assert.Equal((5, 3, 0), (data.Tokens, data.TargetCount, data.Truncated));
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(file))), data.Hash);
    }

    [Fact]
    public void Long_rows_are_truncated_at_the_end_and_counted()
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
    [InlineData("{\"prompt\":\"a\",\"completion\":5}", "completion is not a string")]
    [InlineData("{\"prompt\":\"a\",\"completion\":null}", "it has prompt, completion (null)")]
    [InlineData(
        "{\"prompt\":\"a\",\"completion\":[{\"role\":\"assistant\",\"content\":\"b\"}]}",
        "completion is a list of messages and prompt is none"
    )]
    [InlineData("{\"prompt\":[{\"role\":\"user\",\"content\":\"a\"}],\"completion\":[]}", "carries loss")]
    [InlineData("{\"text\":\"\\ud800\"}", "text")]
    [InlineData("{\"input_ids\":[1,2],\"labels\":[1]}", "differ in length")]
    [InlineData("{\"input_ids\":[1,2.5]}", "integers")]
    [InlineData("{\"input_ids\":[1,-2]}", "negative")]
    [InlineData("{\"input_ids\":[1,2],\"labels\":[2,-100]}", "carries loss")]
    [InlineData("{\"input_ids\":[1,2],\"attention_mask\":[0,1]}", "attention_mask")]
    [InlineData("{\"input_ids\":[1,2,3,4],\"labels\":[-100,-100,-100,4]}", "maxLength = 3")]
    public void Bad_row_is_reported_by_file_and_line(string row, string found)
    {
        var fault = Assert.Throws<UserFault>(() => Load("{\"input_ids\":[1,2]}\n" + row, maxLength: 3));
        Assert.Contains($"{file}:2: ", fault.Found);
        Assert.Contains(found, fault.Found);
        Assert.Equal(2, Assert.Single(fault.Problems).Line);
    }

    [Fact]
    public void Bad_rows_are_reported_together_up_to_twenty()
    {
        var fault = Assert.Throws<UserFault>(() => Load(string.Concat(Enumerable.Repeat("{}\n", 30))));
        Assert.Equal(20, fault.Problems.Count);
    }

    [Fact]
    public void Empty_and_missing_files_are_reported()
    {
        Assert.Contains("no rows", Assert.Throws<UserFault>(() => Load(" \n")).Message);
        File.Delete(file);
        Assert.Contains(
            file,
            Assert
                .Throws<UserFault>(() => Dataset.Load(file, () => Nano, () => null, new(), new HashSet<int>()))
                .Message
        );
    }
}
