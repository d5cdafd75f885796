using System.Text.Json;
using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;

namespace Memopt.Trainer.Tests.Data;

/// <summary>Keys that other tools give a meaning to are honoured or refused by name. What is right comes from the
/// tools: OpenAI's and Axolotl's per-message weights, LLaMA-Factory's converters (history, system, kto_tag), TRL (tools
/// as JSON text, one end token, masks beside input_ids).
/// </summary>
public sealed class KnownKeysTests : IDisposable
{
    private const string User = "{\"role\":\"user\",\"content\":\"a\"}",
        Answer = "{\"role\":\"assistant\",\"content\":\"b\"}";
    private const string Calling = """
        {%- for tool in tools or [] %}[{{ tool | tojson }}]{% endfor %}
        {%- for m in messages %}<|im_start|>{{ m.role }}
        {% for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}{{ m.content or '' }}<|im_end|>
        {% endfor %}
        """;

    private static readonly Tokenizer nano = Tokenizer.Load(TestBackend.Nano);
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;
    private readonly List<string> notes = [];

    public void Dispose() => Directory.Delete(folder, recursive: true);

    private IReadOnlyList<Row> Load(string rows, string? template = null, string name = "a.jsonl", string? train = null)
    {
        File.WriteAllText(Path.Combine(folder, name), rows);
        File.WriteAllText(
            Path.Combine(folder, "memopt.json"),
            $$"""{ "data": { "train": {{train ?? $"\"{name}\""}} } }"""
        );
        var model = new ChatEncoder(
            () => nano,
            () => template is null ? ChatTemplate.Load(TestBackend.Nano) : ChatTemplate.Parse(template),
            new HashSet<int> { nano.Id("<|im_end|>")!.Value }
        );
        return Dataset
            .Load(
                RunConfigFile.Read(Path.Combine(folder, "memopt.json"), []),
                model,
                DataRole.Train,
                new DataReports(notes.Add, (_, _) => { })
            )!
            .Rows;
    }

    private static string Text(Row row) => nano.Decode(row.Ids, skipSpecial: false);

    private static string Trained(Row row) =>
        nano.Decode([.. row.Labels.Where(label => label != Row.NoLoss)], skipSpecial: false);

    private string Refused(string row, string? template = null)
    {
        // Behind a good row, so that the line tells.
        var problem = Assert.Single(
            Assert.Throws<UserFault>(() => Load($"{{\"messages\":[{User},{Answer}]}}\n{row}\n", template)).Problems
        );
        Assert.Equal(2, problem.Line);
        return problem.Message;
    }

    [Theory]
    [
        InlineData("\"weight\":0", "\"weight\":1"),
        InlineData("\"weight\":0.0", "\"weight\":1.0"),
        InlineData("\"train\":false", "\"train\":true")
    ]
    [
        InlineData("\"training\":false", "\"training\":null"),
        InlineData("\"loss\":false", "\"loss\":true"),
        InlineData("\"weight\":0,\"train\":false", "\"name\":\"x\"")
    ]
    public void Turn_marked_not_to_be_trained_carries_no_loss(string without, string with)
    {
        var turns =
            $$$"""{"role":"assistant","content":"BAD",{{{without}}}},{{{User}}},{"role":"assistant","content":"GOOD",{{{with}}}}""";
        var shared = turns
            .Replace("\"role\":\"assistant\"", "\"from\":\"gpt\"")
            .Replace("\"role\":\"user\"", "\"from\":\"human\"")
            .Replace("content", "value");
        var rows =
            $"{{\"messages\":[{User},{turns}]}}\n{{\"conversations\":[{{\"from\":\"human\",\"value\":\"a\"}},"
            + $"{shared}]}}\n{{\"prompt\":[{User}],\"completion\":[{turns}]}}\n";
        const string marks =
            "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% "
            + "endgeneration %}{% generation %}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% "
            + "endfor %}";
        foreach (var template in new[] { null, marks })
            Assert.All(Load(rows, template), row => Assert.Equal("GOOD<|im_end|>", Trained(row)));
    }

    [Theory]
    [InlineData("{\"role\":\"assistant\",\"content\":\"b\",\"weight\":0.5}", "\"weight\" of message 2 is 0.5")]
    [InlineData("{\"role\":\"assistant\",\"content\":\"b\",\"train\":\"no\"}", "\"train\" of message 2 is \"no\"")]
    [InlineData(
        "{\"role\":\"assistant\",\"content\":\"b\",\"weight\":1,\"train\":false}",
        "message 2 is to carry loss and not to"
    )]
    [InlineData(
        "{\"role\":\"user\",\"content\":\"b\",\"train\":true}",
        "message 2 is to carry loss and is not the assistant's"
    )]
    [InlineData(
        "{\"role\":\"assistant\",\"content\":\"b\",\"train_detail\":[{\"begin_offset\":0}]}",
        "\"train_detail\" of message 2"
    )]
    [InlineData("{\"role\":\"assistant\",\"content\":null,\"refusal\":\"no\"}", "\"refusal\" of message 2")]
    [InlineData("{\"role\":\"user\",\"content\":\"b\",\"images\":[\"a.png\"]}", "\"images\" of message 2")]
    [InlineData(
        "{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"arguments\":\"{}\"}}",
        "function_call of message 2 is not an object with a name"
    )]
    [InlineData(
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":\"call f\"}",
        "tool_calls of message 2 is not a list of objects"
    )]
    [InlineData(
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[\"f\"]}",
        "tool_calls of message 2 is not a list of objects"
    )]
    [InlineData(
        "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]}",
        "message 2 only calls tools, and the model's chat template does not write calls"
    )]
    public void Message_key_that_is_not_supported_is_refused_by_name(string message, string expected) =>
        Assert.StartsWith(expected, Refused($"{{\"messages\":[{User},{message},{Answer}]}}"));

    [Theory]
    [
        InlineData("images", "[\"a.png\"]"),
        InlineData("videos", "\"a.mp4\""),
        InlineData("audios", "[1]"),
        InlineData("rejected_response", "\"no\"")
    ]
    [
        InlineData("rejected", "\"no\""),
        InlineData("chosen", "\"yes\""),
        InlineData("history", "[[\"q\",\"a\"]]"),
        InlineData("weight", "0.5"),
        InlineData("position_ids", "[0]")
    ]
    public void Row_key_that_is_not_supported_is_refused_unless_empty_or_renamed(string key, string value)
    {
        Assert.StartsWith(
            $"column \"{key}\" is not supported here: ",
            Refused($"{{\"messages\":[{User},{Answer}],\"{key}\":{value}}}")
        );
        foreach (var nothing in new[] { "null", "[]", "\"\"" })
            Assert.Single(Load($"{{\"messages\":[{User},{Answer}],\"{key}\":{nothing}}}"));
        Assert.Single(
            Load(
                $"{{\"messages\":[{User},{Answer}],\"{key}\":{value}}}",
                train: $"{{ \"source\": \"a.jsonl\", \"columns\": {{ \"unused\": \"{key}\" }} }}"
            )
        );
    }

    [Theory]
    [
        InlineData("{\"prompt\":\"p\",\"completion\":\"c\",\"system\":\"s\"}", "system"),
        InlineData("{\"text\":\"t\",\"system_prompt\":\"s\"}", "system_prompt"),
        InlineData("{\"prompt\":\"p\",\"completion\":\"c\",\"tools\":[{}]}", "tools")
    ]
    public void Row_key_that_only_a_chat_can_have_is_refused_beside_text(string row, string key) =>
        Assert.StartsWith($"column \"{key}\" is not supported here: only a chat", Refused(row));

    [Fact]
    public void History_comes_before_the_instruction_and_is_trained()
    {
        // LLaMA-Factory's AlpacaDatasetConverter: history is a list of [instruction, answer], and mask_history is off.
        var rows = Load(
            """
            {"instruction": "now", "input": "", "output": "later", "history": [["first q", "first a"], ["second q", "second a"]], "system": "s"}
            {"instruction": "now", "output": "later", "history": []}
            """
        );
        Assert.Equal(
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nfirst q<|im_end|>\n<|im_start|>assistant\nfirst "
                + "a<|im_end|>\n<|im_start|>user\nsecond q<|im_end|>\n"
                + "<|im_start|>assistant\nsecond a<|im_end|>\n<|im_start|>user\nnow<|im_end|>\n"
                + "<|im_start|>assistant\nlater<|im_end|>\n",
            Text(rows[0])
        );
        Assert.Equal("first a<|im_end|>second a<|im_end|>later<|im_end|>", Trained(rows[0]));
        Assert.Equal("<|im_start|>user\nnow<|im_end|>\n<|im_start|>assistant\nlater<|im_end|>\n", Text(rows[1]));
        Assert.StartsWith(
            "history is not a list of [instruction, answer]",
            Refused("{\"instruction\":\"a\",\"output\":\"b\",\"history\":[[\"q\"]]}")
        );
        Assert.StartsWith(
            "a question of history is not a string",
            Refused("{\"instruction\":\"a\",\"output\":\"b\",\"history\":[[1,\"a\"]]}")
        );
        Assert.StartsWith(
            "history is not a list",
            Refused("{\"instruction\":\"a\",\"output\":\"b\",\"history\":\"before\"}")
        );
    }

    [Theory, InlineData("system"), InlineData("system_prompt")]
    public void System_key_beside_messages_is_their_first_turn_unless_they_have_one(string key)
    {
        var rows = Load(
            $$$"""
            {"{{{key}}}": "S", "messages": [{{{User}}},{{{Answer}}}]}
            {"{{{key}}}": "S", "conversations": [{"from": "system", "value": "T"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
            {"{{{key}}}": "S", "prompt": [{{{User}}}], "completion": [{{{Answer}}}]}
            {"{{{key}}}": "S", "instruction": "a", "output": "b"}
            """
        );
        Assert.Equal(
            ["S", "T", "S", "S"],
            rows.Select(row => Text(row).Split("<|im_start|>system\n")[1..].Single().Split("<|im_end|>")[0])
        );
        Assert.All(rows, row => Assert.Equal("b<|im_end|>", Trained(row)));
    }

    [Fact]
    public void Tools_may_be_a_list_of_objects_or_its_JSON_text()
    {
        var row = $"\"messages\":[{User},{Answer}]";
        var rows = Load(
            $$$"""
            {{{{row}}},"tools":"null"}
            {{{{row}}},"tools":""}
            {{{{row}}},"tools":[{"name":"f"}]}
            {{{{row}}},"tools":"[{\"name\":\"f\"}]"}
            {{{{row}}},"functions":[{"name":"f"}]}
            """,
            Calling
        );
        Assert.Equal(
            [
                "",
                "",
                "[{\"name\": \"f\"}]",
                "[{\"name\": \"f\"}]",
                "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]",
            ],
            rows.Select(row => Text(row).Split("<|im_start|>")[0])
        );
        foreach (
            var (value, shown) in new[]
            {
                ("\"you may call f\"", "\"you may call f\""),
                ("[\"f\"]", "[\"f\"]"),
                ("{\"name\":\"f\"}", "{\"name\":\"f\"}"),
                ("\"[1]\"", "[1]"),
            }
        )
            Assert.Equal(
                $"tools is not a list of objects: it is {shown}",
                Refused($"{{{row},\"tools\":{value}}}", Calling)
            );
        Assert.StartsWith("documents is not a list of objects", Refused($"{{{row},\"documents\":\"d\"}}"));
    }

    [Fact]
    public void Tool_calls_in_OpenAI_s_forms_are_accepted()
    {
        const string result = "{\"role\":\"function\",\"name\":\"f\",\"content\":\"3\"}";
        var rows = Load(
            Filled(
                """
                {"messages":[USER,{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{\"a\": 1}"}},RESULT,ANSWER]}
                {"messages":[USER,{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{\"a\": 1}"}}]},RESULT,ANSWER]}
                {"messages":[USER,{"role":"assistant","tool_calls":"[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\": 1}}}]"},RESULT,ANSWER]}
                """
            ),
            Calling
        );
        Assert.All(
            rows,
            row =>
                Assert.Equal(
                    "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nf({\"a\": 1})<|im_end|>\n"
                        + "<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n",
                    Text(row)
                )
        );
        Assert.All(rows, row => Assert.Contains("f({\"a\": 1})", Trained(row)));
        // A template that joins the text writes it as it is.
        Assert.Contains(
            "f{\"a\":1}",
            Text(
                Load(
                    Filled(
                        """{"messages":[USER,{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]},USER,ANSWER]}"""
                    ),
                    "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name + "
                        + "c.function.arguments }}{% endfor %}{{ m.content or '' }}<|im_end|>{% endfor %}"
                )[0]
            )
        );

        static string Filled(string rows) =>
            rows.Replace("USER", User).Replace("ANSWER", Answer).Replace("RESULT", result);
    }

    [Fact]
    public void Template_variables_are_read_from_the_row() =>
        Assert.StartsWith(
            "thinking d1 ",
            Text(
                Load(
                    $$$"""{"messages":[{{{User}}},{{{Answer}}}],"chat_template_kwargs":{"mode":"thinking"},"documents":[{"title":"d1"}]}""",
                    "{{ mode }} {% for d in documents %}{{ d.title }} {% endfor %}{% for m in messages "
                        + "%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
                )[0]
            )
        );

    [Theory, InlineData("label"), InlineData("kto_tag")]
    public void Rejected_answers_are_left_out_in_every_shape(string key)
    {
        var rows = Load(
            $$$"""
            {"messages":[{{{User}}},{{{Answer}}}],"{{{key}}}":true}
            {"messages":[{{{User}}},{{{Answer}}}],"{{{key}}}":false}
            {"instruction":"a","output":"b","{{{key}}}":false}
            {"prompt":"a","completion":"b","{{{key}}}":"False"}
            """
        );
        Assert.Equal(1, Assert.Single(rows).Line);
        Assert.StartsWith(
            "kto_tag is neither true nor false",
            Refused($"{{\"messages\":[{User},{Answer}],\"kto_tag\":0.5}}")
        );
    }

    [Fact]
    public void Text_with_a_label_becomes_question_and_answer_and_is_reported()
    {
        Assert.Equal(
            "<|im_start|>user\nsmall songbird<|im_end|>\n<|im_start|>assistant\nanimal<|im_end|>\n",
            Text(Load("text,label,id\nsmall songbird,animal,7\n", name: "a.csv")[0])
        );
        Assert.Equal(2, notes.Count);
        Assert.StartsWith("rows of text and label: the label is trained", notes[0]);
        Assert.Equal("columns that are not used: id", notes[1]);
        Assert.Equal(
            ["animal<|im_end|>", "1<|im_end|>", "t<|im_end|>"],
            Load(
                    "{\"text\":\"t\",\"label\":\"animal\"}\n{\"text\":\"t\",\"label\":1}\n"
                        + "{\"text\":\"t\",\"label\":false}\n"
                )
                .Select(Trained)
        );
        Assert.StartsWith("label is empty", Refused("{\"text\":\"t\",\"label\":\"\"}"));
    }

    [Fact]
    public void Unused_columns_are_reported_once_for_a_data_set()
    {
        Load(
            string.Concat(
                Enumerable.Repeat(
                    $"{{\"messages\":[{User},{{\"role\":\"assistant\",\"content\":\"b\",\"reasoning_content\":\"r\"}}],\"id\":1,\"source\":\"x\",\"empty\":null,\"category\":\"c\"}}\n",
                    50
                )
            )
        );
        Assert.Equal(
            [
                "column \"category\" looks like a label and is not used; to train on it as the answer, "
                    + "\"columns\": {\"text\": …, \"label\": \"category\"}",
                "columns that are not used: category, id, source",
                "not written by the model's chat template: reasoning_content",
            ],
            notes
        );
        notes.Clear();
        Load($"{{\"messages\":[{User},{Answer}]}}\n");
        Assert.Empty(notes);
    }

    [Fact]
    public void Rows_that_begin_or_end_with_a_special_token_get_no_second_one()
    {
        // TRL's add_eos, Axolotl's check of the last id; Unsloth's check for a second beginning token.
        var rows = Load(
            """
            {"text": "### Q: a\n### A: b<|im_end|>"}
            {"prompt": "### Q: a\n### A:", "completion": " b<|im_end|>"}
            {"text": "plain"}
            {"prompt": "q<|im_end|>", "completion": ""}
            """
        );
        Assert.Equal(
            [
                "### Q: a\n### A: b<|im_end|>",
                "### Q: a\n### A: b<|im_end|>",
                "plain<|im_end|>",
                "q<|im_end|><|im_end|>",
            ],
            rows.Select(Text)
        );
    }

    [Fact]
    public void Masks_beside_tokens_remove_loss()
    {
        // TRL's DataCollatorForLanguageModeling: labels are -100 where completion_mask or assistant_masks is 0.
        var rows = Load(
            "{\"input_ids\":[1,2,3,4],\"completion_mask\":[0,0,1,1]}\n"
                + "{\"input_ids\":[1,2,3,4],\"assistant_masks\":[0,1,0,1],\"completion_mask\":[0,1,1,1],\"messages\":[]}\n"
        );
        Assert.Equal([-100, -100, 3, 4], rows[0].Labels);
        Assert.Equal([-100, 2, -100, 4], rows[1].Labels);
        Assert.StartsWith(
            "completion_mask and input_ids differ in length",
            Refused("{\"input_ids\":[1,2],\"completion_mask\":[1]}")
        );
    }

    [Fact]
    public void Sample_reports_a_row_that_truncation_leaves_empty_at_its_line()
    {
        File.WriteAllText(
            Path.Combine(folder, "a.jsonl"),
            string.Concat(
                Enumerable
                    .Range(0, 30)
                    .Select(i =>
                        $"{{\"messages\":[{{\"role\":\"user\",\"content\":\"what is {i} and two\"}},{Answer}],\"id\":"
                        + $"{i}}}\n"
                    )
            )
        );
        IReadOnlyList<Problem> Sample(string settings)
        {
            File.WriteAllText(
                Path.Combine(folder, "memopt.json"),
                $$"""
                {
                  "data": { "train": "a.jsonl",
                    "maxLength": {{settings}} }
                }
                """
            );
            return Dataset.Sample(
                RunConfigFile.Read(Path.Combine(folder, "memopt.json"), []),
                new ChatEncoder(TestBackend.Nano, new HashSet<int> { nano.Id("<|im_end|>")!.Value }),
                100
            );
        }
        foreach (
            var truncate in Enum.GetValues<Truncation>()
                .Where(truncate => truncate is Truncation.Right or Truncation.Drop)
        )
        {
            var problems = Sample(
                $"8, \"truncate\": {JsonSerializer.Serialize(truncate.ToString().ToLowerInvariant())}"
            );
            var problem = Assert.Single(problems, problem => !problem.Warning);
            Assert.Equal(
                (Path.Combine(folder, "memopt.json"), 3, "data.maxLength"),
                (problem.File, problem.Line, problem.Path)
            );
            Assert.StartsWith("leaves nothing to train on in 30 of the 30 rows", problem.Message);
        }
        var warning = Assert.Single(Sample("64"));
        Assert.Equal((true, "columns that are not used: id"), (warning.Warning, warning.Message));
    }
}
