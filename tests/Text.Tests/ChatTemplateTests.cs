using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Core.Tests;

namespace Memopt.Text.Tests;

public sealed class ChatTemplateTests
{
    private const string Chat = """
        [{"role":"system","content":" Be brief. "},{"role":"user","content":"Hi <you> & 'me'"},
         {"role":"assistant","content":"<think>hm</think>Hello","tool_calls":[{"function":{"name":"add","arguments":{"a":1,"b":[2.5,"ü\n"]}}}]},
         {"role":"tool","content":"3"},{"role":"user","content":"bye"}]
        """;

    private const string Tools =
        """[{"type":"function","function":{"name":"add","description":"Adds \"two\".","parameters":{"type":"object","properties":{"a":{"type":"number"},"b":{}},"required":["a"]}}}]""";

    /// <summary>One feature each, where the JavaScript engine and Jinja2 agree.</summary>
    private static readonly string[] Shared =
    [
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m.content + '<|im_end|>\n' }}{% endfor "
            + "%}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "{%- if messages[0]['role'] == 'system' %}\n    {%- set system = messages[0]['content']|trim %}\n    {%- "
            + "set messages = messages[1:] %}\n{%- else %}\n    {%- set system = '' %}\n{%- endif %}\n[{{ system }}]{{ "
            + "messages|length }}",
        "{%- for m in messages %}\n  {%- if (m.role == 'user') or (m.role == 'system' and not loop.first) or "
            + "(m.role == 'assistant' and not m.tool_calls) %}\n{{- '<|' + m.role + '|>' }}\n  {%- elif m.role == "
            + "'assistant' %}\n    {%- for call in m.tool_calls %}\n      {%- if call.function is defined %}{%- set "
            + "call = call.function %}{%- endif %}\n{{- '\\n{\"name\": \"' }}{{- call.name }}{{- '\", \"arguments\": ' "
            + "}}{{- call.arguments | tojson }}{{- '}' }}\n    {%- endfor %}\n  {%- elif m.role == 'tool' %}\n    {%- "
            + "if (loop.index0 == 0) or (messages[loop.index0 - 1].role != 'tool') %}{{- '<tools>' }}{%- endif %}\n  "
            + "{%- endif %}\n{%- endfor %}",
        "{% for tool in tools %}{{ tool | tojson(indent=4) }}\n{% endfor %}{{ tools | tojson }}",
        "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set "
            + "ns.found = true %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{% if ns.found %}{{ ns.n }}{% "
            + "endif %}",
        "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{% if loop.last %}L{% endif "
            + "%}{{ loop.length }}{% if loop.previtem is defined %}{{ loop.previtem.role }}{% endif %},{% endfor %}",
        "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{% else %}none{% endfor %}{% "
            + "for m in messages if m.role == 'x' %}a{% else %}none{% endfor %}",
        "{% for m in messages[::-1] %}{{ m.role }} {% endfor %}{{ messages[-1].content }}{{ messages[1:3]|length "
            + "}}{{ 'abcdef'[1:-1] }}{{ 'abcdef'[::2] }}",
        "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ "
            + "i }}{% endfor %}",
        "{% macro show(m, end='!', n=2) %}{{ m.role ~ end ~ n }}{% endmacro %}{{ show(messages[0]) }}{{ "
            + "show(messages[1], end='?') }}{{ show(messages[1], n=1) }}",
        "{% set text %}a {{ messages|length }}\n  b{% endset %}[{{ text }}]{% filter upper %}abc{% endfilter %}",
        "{% macro box() %}<{{ caller() }}>{% endmacro %}{% call box() %}in{% endcall %}",
        (
            "{{ 'x' if add_generation_prompt else 'y' }}{{ ('a' if false else 'b') }}{{ 1 + 2 * 3 - 4 // 1 }}{{ 7 % "
            + "3 }}{{ not true or 1 < 2 and 'a' in 'abc' }}"
        )
            .Replace("{{ not true or 1 < 2 and 'a' in 'abc' }}", "{{ 'ok' if not true or 1 < 2 and 'a' in 'abc' }}")
            .Replace("4 // 1", "4"),
        "{{ bos_token }}{% if 'x' not in ['a', 'b'] and 'content' in messages[0] %}in{% endif %}{% if missing is "
            + "not defined and missing is undefined %}u{% endif %}{{ missing }}",
        "{% set v = messages[0] %}{% if v is mapping and v.role is string and messages is iterable and 1 is "
            + "number and true is boolean and none is none and messages is sequence and 2 is even and 3 is odd %}all{% "
            + "endif %}",
        "{{ ' a b '.strip() }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'a,b,c'.split(',')[-1] }}|{{ 'a "
            + "b'.title() }}|{{ 'ab'.upper() }}|{{ 'AB'.lower() }}|{{ 'aba'.replace('a', 'c') }}",
        "{{ messages[2].content.split('</think>')[-1].lstrip('\\n') }}{% if '</think>' in messages[2].content "
            + "%}t{% endif %}{% if 'abc'.startswith('ab') and 'abc'.endswith('c') %}s{% endif %}",
        "{{ messages | map(attribute='role') | join(', ') }}|{{ messages | selectattr('role', 'equalto', 'user') "
            + "| list | length }}|{{ messages | rejectattr('role', 'equalto', 'user') | list | length }}|{{ (messages "
            + "| first).role }}{{ (messages | last).role }}",
        "{{ 'hello world' | title }}{{ 'a' | upper }}{{ missing | default('d') }}{{ '' | default('e', true) }}{{ "
            + "'12' | int + 1 }}{{ -3 | abs }}{{ ['b', 'a'] | sort | join }}{{ [1, 1, 2] | unique | join('-') }}{{ 'a\n"
            + "b' | indent(2) }}{{ 'x' | string }}",
        "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{% for k in messages[0].keys() %}{{ k "
            + "}}{% endfor %}{{ messages[0].get('role') }}{{ messages[0].get('nope', 'd') }}{% for k, v in {'b': 1, "
            + "'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}{% for k, v in {'b': 1} | items %}{{ k }}{{ v }}{% "
            + "endfor %}",
        "a\n  {% if true %}\n  b\n  {% endif %}\nc {# note #} d\n  {# whole line #}\ne {{- ' f ' -}} \n g\n{%- "
            + "if true -%}  h  {%- endif %}\nz\n",
        "  {%- if true %}x{% endif %}\n\n   {% set a = 1 %}\n\n{{ a }}\n",
        "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set d = {'k': [1, 2, {'z': 'w'}]} %}{{ d['k'][2].z }}{{ d.k[0] "
            + "}}{% if (1, 2) | length == 2 %}t{% endif %}",
        "{% generation %}{{ 'kept' }}{% endgeneration %}{{ \"it's\" }}{{ 'a\\tb\\\\' }}{{ 'é𝒳'|length }}".Replace(
            "{{ 'é𝒳'|length }}",
            ""
        ),
        "{% if tools is not none and tools %}{% for t in tools %}{% set f = t.function %}{% for p, s in "
            + "f.parameters.properties.items() %}{{ p }}:{{ s.type | default('any') }}{% if p in f.parameters.required "
            + "%}*{% endif %}{{ ', ' if not loop.last }}{% endfor %}{% endfor %}{% endif %}",
        "{%- for m in messages -%}{%- if m.role == 'user' and loop.last -%}{{ bos_token + '[INST] ' + m.content "
            + "+ '[/INST]' }}{%- elif m.content is string -%}{{ ' ' + m.content|trim + eos_token }}{%- endif -%}{%- "
            + "endfor -%}",
    ];

    [Fact]
    public void Template_features_shared_with_the_JavaScript_engine_render_equally()
    {
        var variables = Variables();
        variables["messages"] = JsonNode.Parse(Chat);
        variables["add_generation_prompt"] = true;
        var input = new JsonArray([
            .. Shared.Select(template =>
                (JsonNode)new JsonObject { ["template"] = template, ["variables"] = variables.DeepClone() }
            ),
        ]);
        foreach (var (template, expected) in Shared.Zip(Oracle.Ask("templates.mjs", input.ToJsonString()).AsArray()))
        {
            Assert.True(expected is JsonValue, $"{template}: {expected!.ToJsonString()}");
            Assert.Equal((string)expected!, Render(template));
        }
    }

    /// <summary>Where the JavaScript engine differs, Jinja2 and Python are followed.</summary>
    [Theory]
    [InlineData(
        "{{ true }} {{ none }} {{ ['a', 1, none, true, 1.0] }} {{ 1e-7 }} {{ (1,) }} {{ {'a': \"it's\"} }}",
        "True None ['a', 1, None, True, 1.0] 1e-07 (1,) {'a': \"it's\"}"
    )]
    [InlineData(
        "{{ 1e16 }} {{ 123456.75 }} {{ 0.0001 }} {{ 10 / 4 }} {{ 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 "
            + "}} {{ 2 ** 10 }}",
        "1e+16 123456.75 0.0001 2.5 2.0 3 -4 2 1024"
    )]
    [InlineData(
        "{% for x in nothing %}a{% endfor %}{{ nothing }}{{ messages.nothing }}|{{ '%s-%d' % ('a', 3) }}|{{ "
            + "'ab𝒳'[2] }}|{{ '𝒳y' | length }}",
        "|a-3|𝒳|2"
    )]
    [InlineData(
        "{{ {'b': 1, 'a': '<é>'} | tojson }} {{ [] | tojson(indent=2) }} {{ {'b': 1, 'a': 2} | "
            + "tojson(sort_keys=true, separators=(',', ':')) }}",
        "{\"b\": 1, \"a\": \"<é>\"} [] {\"a\":2,\"b\":1}"
    )]
    [InlineData(
        "{{ 'a-b c'.title() }} {{ \"don't x\" | title }} {{ \"don't\".title() }} {{ 'abc'.find('c') }} {{ '{} "
            + "{x}'.format(1, x=2) }} {{ [3, 1, 2] | sort(reverse=true) }}",
        "A-B C Don't X Don'T 2 1 2 [3, 2, 1]"
    )]
    [InlineData(
        "{% set x = 1 %}{% for i in [1, 2] %}{% set x = 5 %}{% endfor %}{{ x }}{% if true %}{% set x = 2 %}{% "
            + "endif %}{{ x }}",
        "12"
    )]
    [InlineData(
        "{{ 'hELLO' | capitalize }} {{ 'xxaxx'.strip('x') }} {{ 'ab' * 2 }} {{ -3 | abs }} {{ -1.5 | abs }}",
        "Hello a abab 3 1.5"
    )]
    [InlineData("  {%+ if true %}x{% endif +%}\ny", "  x\ny")]
    public void Template_where_the_engines_differ_renders_as_Jinja2(string template, string expected) =>
        Assert.Equal(expected, Render(template));

    [Theory]
    [InlineData("{{ nothing.a.b }}", "nothing")]
    [InlineData("{{ raise_exception('no system here') }}", "no system here")]
    [InlineData("{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}", "memory")]
    [InlineData("{{ 'a' * 999999999 }}", "too long")]
    [InlineData("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "deeply")]
    [InlineData("{{ 1 / 0 }}", "zero")]
    [InlineData(
        "{% set ns = namespace(t='x' * 30000000) %}{% for i in range(100) %}{% set ns.t = ns.t | upper %}{% endfor %}",
        "memory"
    )]
    [InlineData(
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "too long"
    )]
    [InlineData(
        "{% set ns = namespace(l=[]) %}{% for i in range(600) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l | tojson }}",
        "too deeply"
    )]
    [InlineData(
        "{% set ns = namespace(l=[]) %}{% for i in range(40000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
        "too deeply"
    )]
    [InlineData(
        "{% set ns = namespace(l=[]) %}{% for i in range(600) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
        "too deeply"
    )]
    [InlineData(
        "{% set ns = namespace(l=[], m=[]) %}{% for i in range(600) %}{% set ns.l = [ns.l] %}{% set ns.m = "
            + "[ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
        "too deeply"
    )]
    [InlineData(
        "{% set ns = namespace(l=[], m=[]) %}{% for i in range(600) %}{% set ns.l = [ns.l] %}{% set ns.m = "
            + "[ns.m] %}{% endfor %}{{ [ns.l, ns.m] | sort }}",
        "too deeply"
    )]
    [InlineData("{% for x in [[[[1]]]] recursive %}{{ loop([[x]]) }}{% endfor %}", "deeply")]
    [InlineData("{{ 'x'.center(99999999999) }}", "width")]
    [InlineData("{{ '%99999999d' % 1 }}", "width")]
    [InlineData("{{ [3, 'a'] | sort }}", "no order")]
    [InlineData("{{ range(1, 2, 0) }}", "step not 0")]
    [InlineData("{{ ('a' * 3300000) in ('a' * 3300000) }}{{ 9223372036854775807 + 1 }}", "too large")]
    [InlineData("{{ messages | nosuch }}", "nosuch")]
    [InlineData("{{ messages.append(1) }}", "called")]
    [InlineData("{% include 'x' %}", "include")]
    [InlineData("{% if true %}", "endif")]
    [InlineData("{{ 'a", "line 1")]
    public void Template_with_an_unsupported_feature_is_refused_by_name(string template, string found)
    {
        var fault = Assert.Throws<UserFault>(() => Render(template));
        Assert.Contains(found, fault.Found);
    }

    [Fact]
    public void Generation_tags_mark_the_generated_text()
    {
        var template = ChatTemplate.Parse(
            "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content "
                + "}}</s>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
        );
        var chat = template.RenderMarked(
            [Message("user", "q"), Message("assistant", "yes"), Message("user", "r"), Message("assistant", "no")],
            false
        );
        Assert.Equal(["yes</s>", "no</s>"], chat.Generated.Select(span => chat.Text[span.Start..span.End]));
    }

    [Fact]
    public void Strftime_now_uses_the_given_clock()
    {
        var template = ChatTemplate.Parse(
            "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%-d %B %H:%M') }}",
            clock: new FixedClock()
        );
        Assert.Equal("05 Jul 2024 5 July 12:03", template.Render([], false));
    }

    [Fact]
    public void Nano_template_renders_its_chat_format()
    {
        var template = ChatTemplate.Load(Repository.Nano)!;
        Assert.Equal(
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
            template.Render([Message("user", "hi")], true)
        );
    }

    [Fact]
    public void Templates_in_a_list_use_the_tool_template_with_tools()
    {
        var folder = Directory.CreateTempSubdirectory("memopt-template-").FullName;
        File.WriteAllText(
            Path.Combine(folder, "tokenizer_config.json"),
            """{"chat_template":[{"name":"tool_use","template":"tools"},{"name":"default","template":"plain"}]}"""
        );
        var template = ChatTemplate.Load(folder)!;
        Directory.Delete(folder, recursive: true);
        Assert.Equal("plain", template.Render([], false));
        Assert.Equal("tools", template.Render([], false, Variables()));
    }

    /// <summary>As transformers: files come before tokenizer_config.json, and each named one has its own
    /// place.</summary>
    [Fact]
    public void Templates_in_files_precede_those_in_the_config()
    {
        var folder = Directory.CreateTempSubdirectory("memopt-template-").FullName;
        Directory.CreateDirectory(Path.Combine(folder, "additional_chat_templates"));
        File.WriteAllText(
            Path.Combine(folder, "tokenizer_config.json"),
            """{"chat_template":[{"name":"tool_use","template":"old tools"},{"name":"default","template":"old"}]}"""
        );
        File.WriteAllText(Path.Combine(folder, "additional_chat_templates", "tool_use.jinja"), "tools");
        var alone = ChatTemplate.Load(folder)!;
        File.WriteAllText(Path.Combine(folder, "chat_template.jinja"), "plain");
        var both = ChatTemplate.Load(folder)!;
        Directory.Delete(folder, recursive: true);
        Assert.Equal(("plain", "tools"), (both.Render([], false), both.Render([], false, Variables())));
        Assert.Equal("tools", alone.Render([], false, Variables()));
        Assert.Contains("with tools only", Assert.Throws<UserFault>(() => alone.Render([], false)).Message);
    }

    private static JsonObject Message(string role, string content) => new() { ["role"] = role, ["content"] = content };

    private static JsonObject Variables() =>
        new()
        {
            ["bos_token"] = "<s>",
            ["eos_token"] = "</s>",
            ["tools"] = JsonNode.Parse(Tools),
        };

    private static string Render(string template) =>
        ChatTemplate
            .Parse(template)
            .Render([.. JsonNode.Parse(Chat)!.AsArray().Select(message => (JsonObject)message!)], true, Variables());
}
