using System.Text.Json.Nodes;
using Memopt.Core;

namespace Memopt.Text.Tests;

/// <summary>Templates of strangers that would run for hours or fill the memory end in a fault.</summary>
public sealed class TemplateCostTests
{
    private const long MostBytes = 256 << 20;

    // Each level holds the one before twice.
    private const string Doubled =
        "{% set ns=namespace(a=[1],b=[1]) %}{% for i in range(60) %}{% set ns.a=[ns.a,ns.a] %}{% set "
        + "ns.b=[ns.b,ns.b] %}{% endfor %}";

    // A text of eight million characters, and one that nearly matches it everywhere.
    private const string Near = "{% set t='a'*8000000 %}{% set p='a'*200000+'b'+'a'*200000 %}";

    private const string Deep =
        "{% set ns=namespace(a=[],b=[]) %}{% for i in range(100000) %}{% set ns.a=[ns.a] %}{% set ns.b=[ns.b] "
        + "%}{% endfor %}";

    public static TheoryData<string> Costly =>
        new([
            Doubled + "{{ ns.a }}",
            Doubled + "{{ ns.a|tojson }}",
            Doubled + "{{ ns.a|string|length }}",
            Doubled + "{{ '%s' % (ns.a,) }}",
            Doubled + "{{ '{}'.format(ns.a) }}",
            Doubled + "{{ ns.a|join }}",
            Doubled + "{{ ns.a < ns.b }}",
            Doubled + "{{ ns.a == ns.b }}",
            Doubled + "{{ [ns.a] in [[ns.b]] }}",
            Doubled + "{{ [ns.a]|unique|list + [ns.a, ns.b]|unique|list }}",
            Doubled + "{{ [ns.a, ns.b]|sort }}",
            Doubled + "{{ [ns.a, ns.b]|max }}",
            Doubled + "{{ [ns.a].index(ns.b) }}",
            Doubled + "{{ raise_exception(ns.a) }}",
            "{% set ns=namespace(d={'k': 1}) %}{% for i in range(60) %}{% set ns.d={'x': ns.d, 'y': ns.d} %}{% "
                + "endfor %}{{ ns.d|tojson }}",
            "{% set ns=namespace(d={'k': 1}) %}{% for i in range(60) %}{% set ns.d={'x': ns.d, 'y': ns.d} %}{% "
                + "endfor %}{{ ns.d }}",
            Deep + "{{ ns.a }}",
            Deep + "{{ ns.a|tojson }}",
            Deep + "{{ ns.a == ns.b }}",
            Deep + "{{ ns.a < ns.b }}",
            Deep + "{{ [ns.a]|map('map','map','map','first')|list }}",
            "{% set r=range(1000000) %}{{ r|select('in', r)|list|length }}",
            "{{ range(1000000)|unique|list|length }}",
            "{% set r=range(1000000)|list %}{% for i in r %}{{ i in r }}{% endfor %}",
            "{{ ('a'*30000000).replace('a','b'*30000000, 1000) }}",
            "{{ ('a'*30000000).replace('a','b'*30000000) }}",
            "{{ ('a'*30000000).replace('','b'*30000) }}",
            "{{ (['x'*30000000]*30)|join }}",
            "{{ (['x'*30000000]*30)|join('y'*3000000) }}",
            "{{ ','.join(['x'*30000000]*30) }}",
            "{{ (['x'*30000000]*30) }}",
            "{{ (['x'*30000000]*30)|tojson }}",
            "{{ (['x'*3000000]*300000)|map('upper')|list|length }}",
            "{{ [['x'*3000000]*300000]|map('join')|list|length }}",
            "{{ [[1]*1000]*1000000 }}",
            "{{ ([[1]*1000000]*1000000)|sum(start=[]) }}",
            "{{ (['x'*1000]*1000000)|sum(start='') }}",
            "{% set ns=namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [range(1000000)] %}{% "
                + "endfor %}",
            "{% set ns=namespace(t='x') %}{% for i in range(100000) %}{% set ns.t = ns.t + 'x'*100000 %}{% endfor %}",
            "{% set ns=namespace(t='x') %}{% for i in range(100000) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
            "{% set ns=namespace(t='x'*30000000) %}{% for i in range(100000) %}{% set x = ns.t.upper() %}{% endfor %}",
            "{% set f=('x'*30000000).isalpha %}{% for i in range(1000000) %}{{ f() }}{% endfor %}",
            "{% set f={}.fromkeys %}{% set d=dict(a=1) %}{% set l=([0]*1000000) %}{% for i in range(1000000) "
                + "%}{% set x=l.copy() %}{% endfor %}",
            "{{ ('a\n'*15000000)|indent('b'*1000000) }}",
            "{{ ('a\n'*15000000).splitlines()|length }}",
            "{{ ('a '*15000000).split()|length }}",
            "{{ ('a '*15000000).split(' ')|length }}",
            "{{ ('&'*30000000)|e|length }}",
            "{{ ('\u00e4'*30000000)|urlencode|length }}",
            "{{ [[[1]]]|tojson(indent='x'*30000000) }}",
            "{{ [1,2,3,4,5,6,7,8]|tojson(separators=('x'*30000000, ':')) }}",
            "{{ [{'a': 1}]*1000 | map(attribute='a.'*10000000)|list }}",
            "{{ [{'a': {}}]*100 }}{{ ([{'a': {}}]*100000)|map(attribute='.a'*3000000)|list }}",
            "{{ '%1000000000d' % 1 }}",
            "{{ '{:>999999999}'.format(1) }}",
            "{{ 'x'.center(1000000000) }}",
            "{{ 'x'|center(999999999) }}",
            "{{ 10**10**10 }}",
            "{{ (2**62)*4 }}",
            "{{ (-9223372036854775807-1)|abs }}",
            "{{ 5 is divisibleby(0) }}",
            "{{ 'x'.zfill(-9223372036854775807-1) ~ 1 // 0 }}",
            "{{ range(10**18) }}",
            "{{ range(9223372036854775800, 9223372036854775807, 5)|length ~ range(2000000)|length }}",
            "{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
            "{% macro m(n) %}{% if n > 0 %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
            "{% for x in [1] recursive %}{{ loop([1]) }}{{ loop([1]) }}{% endfor %}",
            "{{ strftime_now('%c'*15000000) }}",
            "{{ ('\u03a3.'*15000000)|lower|length ~ ('\u03a3'*15000000)|lower|length ~ "
                + "('x'*30000000)|upper|upper|upper|upper }}",
            "{{ ('x'*30000000).strip('abcdefghijklmnopqrstuvw'*1000000+'x') ~ (1//0) }}",
            "{{ '' * 9223372036854775807 ~ [] * 9223372036854775807 ~ 1 // 0 }}",
        ]);

    [Theory]
    [MemberData(nameof(Costly))]
    public void Template_that_is_costly_ends_in_a_fault_within_its_budget(string source)
    {
        using var budget = new Budget("The chat template", TimeSpan.FromSeconds(0.2), 128 << 20);
        var template = ChatTemplate.Parse(source.Replace("\\n", "\n", StringComparison.Ordinal), budget);
        var before = GC.GetAllocatedBytesForCurrentThread();
        Assert.Throws<UserFault>(() => template.Render([], false));
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, MostBytes);
    }

    /// <summary>Searches of a text in one that nearly matches it everywhere; the results are Python's.</summary>
    [Theory]
    [
        InlineData("p in t", "False"),
        InlineData("t.find(p)", "-1"),
        InlineData("t.rfind(p)", "-1"),
        InlineData("t.count(p)", "0")
    ]
    [
        InlineData("t.split(p)|length", "1"),
        InlineData("t.replace(p, '')|length", "8000000"),
        InlineData("t.partition(p)|length", "3")
    ]
    [InlineData("t.rpartition(p)|length", "3"), InlineData("t.rsplit(p)|length", "1")]
    public void Search_takes_time_in_the_sum_of_both_lengths_and_not_their_product(string search, string result)
    {
        using var budget = new Budget("The chat template", TimeSpan.FromSeconds(20), 128 << 20);
        Assert.Equal(result, ChatTemplate.Parse($"{Near}{{{{ {search} }}}}", budget).Render([], false));
    }

    /// <summary>What a render needs beyond its own time is taken from what all renders share.</summary>
    [Fact]
    public void Template_that_is_slow_with_every_row_is_stopped_after_some()
    {
        using var budget = new Budget("The chat template", TimeSpan.FromSeconds(1), 128 << 20);
        var template = ChatTemplate.Parse("{{ range(3000)|unique|list|length }}", budget);
        var fault = Assert.Throws<UserFault>(() =>
        {
            for (var row = 0; row < 1000; row++)
                template.Render([], false);
        });
        Assert.True(fault.OverBudget);
    }

    [Fact]
    public void Template_past_its_budget_is_not_tried_again_with_other_messages()
    {
        using var budget = new Budget("The chat template", TimeSpan.Zero, 128 << 20);
        var template = ChatTemplate.Parse(
            "{% for m in messages %}{{ m.content }}{% endfor %}{{ range(20000)|unique|list|length }}",
            budget
        );
        var messages = new[] { "user", "assistant" }
            .Select(role => new JsonObject { ["role"] = role, ["content"] = "x" })
            .ToList();
        var fault = Assert.Throws<UserFault>(() => AssistantMask.Of(template, new("xx", []), messages, null));
        Assert.True(fault.OverBudget);
    }

    [Fact]
    public void Cancellation_ends_a_running_render()
    {
        using var stop = new CancellationTokenSource();
        var template = ChatTemplate.Parse(
            "{{ strftime_now('%Y') }}{% for i in range(1000000) %}{{ i }}{% endfor %}",
            clock: new CancellingClock(stop)
        );
        Assert.Throws<OperationCanceledException>(() => template.Until(stop.Token).Render([], false));
    }

    [Fact]
    public void Template_that_refuses_a_chat_with_a_long_reason_is_quoted_in_part()
    {
        var fault = Assert.Throws<UserFault>(() =>
            ChatTemplate.Parse("{{ raise_exception('x' * 1000000) }}").Render([], false)
        );
        Assert.InRange(fault.Found!.Length, 1, 600);
    }

    /// <summary>A clock that cancels when it is read.</summary>
    private sealed class CancellingClock(CancellationTokenSource stop) : TimeProvider
    {
        public override DateTimeOffset GetUtcNow()
        {
            stop.Cancel();
            return DateTimeOffset.UnixEpoch;
        }
    }

    /// <summary>Trees that are deep or wide are refused or read; no stack overflows.</summary>
    [Theory]
    [InlineData("{{ ", "(", 100_000)]
    [InlineData("{{ ", "[", 100_000)]
    [InlineData("{{ ", "{'a':", 100_000)]
    [InlineData("{{ ", "not ", 100_000)]
    [InlineData("{{ ", "-", 100_000)]
    [InlineData("{{ 1", "+1", 100_000)]
    [InlineData("{{ x", ".a", 100_000)]
    [InlineData("{{ x", "|list", 100_000)]
    [InlineData("{{ x", "[x", 100_000)]
    [InlineData("{{ 1", " if 1 else 1", 50_000)]
    [InlineData("{{ 1", " is defined", 50_000)]
    [InlineData("{{ ''", " ''", 100_000)]
    [InlineData("", "{% if 1 %}", 50_000)]
    [InlineData("", "{% for x in y %}", 50_000)]
    [InlineData("{% if 1 %}", "{% elif 1 %}", 50_000)]
    [InlineData("{% set ", "(", 100_000)]
    [InlineData("", "{% macro m() %}", 50_000)]
    public void Template_that_is_deep_or_wide_is_refused_or_read(string begin, string repeated, int count)
    {
        try
        {
            ChatTemplate
                .Parse(
                    begin
                        + string.Concat(Enumerable.Repeat(repeated, count))
                        + (begin.StartsWith("{{", StringComparison.Ordinal) ? " }}" : "{% endif %}")
                )
                .Render([], false);
        }
        catch (UserFault)
        {
            // as it may be
        }
    }
}
