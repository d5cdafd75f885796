"""Writes cases.golden.json: templates, one feature each, with what Jinja2 makes of them, set up as transformers does.

Usage: python make_jinja.py (needs jinja2). A case that Jinja2 refuses has "error" in place of "text".
"""
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

CONTEXT = {
    "messages": [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hi <you> & 'me'"},
        {"role": "assistant", "content": "<think>hm</think>Hello", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1, "b": [2.5, "ü\n"]}}}]},
        {"role": "tool", "content": "3"},
        {"role": "user", "content": ""},
    ],
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "nested": {"list": [[1, 2], [3, [4]]], "items": "shadowed", "none": None, "t": True, "f": 1.0, "tree": [{"n": "a", "c": [{"n": "b", "c": []}, {"n": "c", "c": [{"n": "d", "c": []}]}]}, {"n": "e", "c": []}]},
    "rows": [{"k": "b", "v": 2, "x": {"y": 1}}, {"k": "A", "v": 1, "x": {"y": 3}}, {"k": "b", "v": 3, "x": {"y": 2}}, {"k": "a", "v": None}],
    "text": "The quick  brown\tfox — jumps\nover 'it' \"all\" 𝒳 ÿß",
}

CASES = r"""
{{ 0x1F }} {{ 0b101 }} {{ 1_000 }} {{ 1e3 }} {{ 1.50 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2 ** -1 }} {{ 7 // -2 }} {{ -7 % 5 }} {{ 7.5 // 2 }} {{ 7.5 % 2 }}
{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ true + 1 }} {{ true == 1 }} {{ 'a' in 'cat' }} {{ 2 not in [1, 2] }} {{ not 1 in [1] }}
{{ none }} {{ true }} {{ [none, true, 1.0, 'x', "it's"] }} {{ {'a': (1,), 1: none} }} {{ () }} {{ (1, 'b') }} {{ [] }} {{ {} }}
{{ 1e-7 }} {{ 1e16 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }} {{ 1 / 3 }} {{ 4 / 2 }} {{ 1e22 }} {{ -0.0 }} {{ 100000000000000000000.0 }}
{{ nested.list.1.1.0 }} {{ nested.list[1][1][0] }} {{ nested['t'] }} {{ nested['items'] }} {{ nested.get('zz') }} {{ nested.missing }}|{{ nested.list.7 }}
{% set (a, b) = (1, 2) %}{{ a }}{{ b }}{% set a, (b, c) = 3, [4, 5] %}{{ a }}{{ b }}{{ c }}{% for i, (k, v) in [(1, (2, 3)), (4, (5, 6))] %}{{ i }}{{ k }}{{ v }};{% endfor %}
{% for k, v in nested.items() %}{{ k }},{% endfor %}{% for (k, v) in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}
{% for node in nested.tree recursive %}{{ loop.depth }}{{ node.n }}{% if node.c %}({{ loop(node.c) }}){% endif %}{% if not loop.last %},{% endif %}{% endfor %}
{% for node in nested.tree recursive %}<{{ node.n }}{{ loop.depth0 }}>{{ loop(node.c) }}{% else %}-{% endfor %}
{% for x in range(5) if x is odd %}{{ loop.index }}:{{ x }}/{{ loop.length }} {% else %}none{% endfor %}{% for x in [] %}{% else %}empty{% endfor %}
{% for x in 'abc' %}{{ loop.cycle('odd', 'even') }}{{ loop.changed(x == 'b') }}{{ loop.nextitem }}{{ loop.previtem }}{{ loop.revindex0 }} {% endfor %}
{% for x in range(6) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in range(3) %}{% for y in range(3) %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}
{% set ns = namespace(n=0, l=[]) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.n }}{{ ns.l }}{{ ns.missing }}
{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(1, c=5) }} {{ f(b=7, a=8) }} {{ f() }}|{{ f(*[1, 2]) }} {{ f(**{'a': 4, 'b': 5}) }} {{ f(1, *[2], **{'c': 3}) }}
{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, x=4) }}{{ f(1) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, b=2) }}
{% macro box(t) %}<{{ t }}:{{ caller() }}>{% endmacro %}{% call box('x') %}in{{ bos_token }}{% endcall %}
{% macro each(l) %}{% for x in l %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(x, i) each(['a', 'b']) %}[{{ i }}{{ x }}]{% endcall %}
{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(4) }}
{% macro f() %}{% set y = 5 %}{{ y }}{% endmacro %}{% set y = 1 %}{{ f() }}{{ y }}
{% set y = 1 %}{% macro f() %}{{ y }}{% endmacro %}{% set y = 2 %}{{ f() }}
{% with a = 1, b = bos_token %}{{ a }}{{ b }}{% set c = 3 %}{% endwith %}{{ a }}{{ c }}
{% raw %}{{ not }} {% for %}{% endraw %}{{ 1 }}
  {%- raw -%}  x {{ y }}  {%- endraw -%}  z
{% filter upper %}a{{ bos_token }}{% endfilter %}{% filter replace('a', 'b') | trim %} aa {% endfilter %}
{% set t %}x{{ 1 }}{% endset %}{{ t }}{% set t | upper | trim %} y {% endset %}{{ t }}
{% if false %}a{% elif none %}b{% elif '' %}c{% else %}d{% endif %}{{ 'y' if true }}{{ 'y' if false }}|{{ 'a' if 0 else 'b' if '' else 'c' }}
{{ 'a' 'b' }}{{ 'tab\there' }}{{ 'nl\nx' }}{{ "q\"q" }}{{ 'q\'q' }}{{ '\u00e9\x41\\' }}{{ '\d' }}
{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ 'abcdef'[1:4] }}{{ 'abcdef'[::-1] }}{{ 'abcdef'[-3:] }}{{ [1, 2, 3][:-1] }}{{ (1, 2, 3)[1:] }}{{ 'abc'[5] }}|{{ [1][3] }}|{{ '𝒳y'[1] }}
{{ text | length }} {{ text | wordcount }} {{ text | upper }} {{ text | lower }} {{ text | title }} {{ text | capitalize }}
{{ text.split() }} {{ text.split(' ') }} {{ text.split(None, 2) }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'a\nb\r\nc\x0bd\u2028\n'.splitlines() }}
{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xya'.lstrip('yx') }}|{{ 'ayx'.rstrip('xy') }}|{{ 'ab'.center(7) }}|{{ 'abc'.center(6, '*') }}|{{ 'ab'.ljust(4) }}|{{ 'ab'.rjust(4, '.') }}|{{ '-5'.zfill(4) }}|{{ '5'.zfill(3) }}
{{ 'aBc'.swapcase() }} {{ 'ß'.casefold() }} {{ 'aba'.count('a') }} {{ 'aba'.index('b') }} {{ 'aba'.rfind('a') }} {{ 'x'.join(['1', '2']) }} {{ 'abab'.replace('a', 'c', 1) }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('bc') }}
{{ 'a1'.isalnum() }} {{ 'a'.isalpha() }} {{ '12'.isdigit() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab'.islower() }} {{ ''.isdigit() }} {{ 'é'.isascii() }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}
{{ '%s|%5s|%-5s|%d|%05d|%+d|%.2f|%8.3f|%x|%r|%%' % ('a', 'b', 'c', 3, 42, 7, 1.005, 3.14159, 255, 'q') }} {{ '%(a)s-%(b)d' % {'a': 1, 'b': 2} }} {{ '%.3s' % 'abcdef' }} {{ '%e' % 12345.678 }}
{{ '{} {}'.format(1, 'b') }} {{ '{1}{0}'.format('a', 'b') }} {{ '{x:>5}|{x:<5}|{x:^5}|{x:*^5}'.format(x='ab') }} {{ '{:.2f} {:,} {:05d} {:+d} {:x} {:%}'.format(3.14159, 1234567, 42, 7, 255, 0.25) }} {{ '{{}}'.format() }}
{{ 'abc' | center(9) }}|{{ 'a b c d e' | truncate(5, false, '..', 0) }}|{{ 'abcdefghij' | truncate(6, true) }}|{{ 'abcdefghij' | truncate(4, true, '…', 0) }}|{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a\nb' | indent(3, true) }}|{{ 'a\n\nb' | indent('>', blank=true) }}
{{ [3, 1, 2] | sort }} {{ [3, 1, 2] | sort(reverse=true) }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ rows | sort(attribute='k') | map(attribute='k') | list }} {{ [none, none] | sort }}
{{ rows | map(attribute='v') | list }} {{ rows | map(attribute='x.y', default=0) | list }} {{ ['a', 'b'] | map('upper') | list }} {{ ['a'] | map('replace', 'a', 'z') | list }} {{ rows | map(attribute='k') | unique | list }} {{ rows | selectattr('v') | map(attribute='v') | list }} {{ rows | selectattr('v', 'gt', 1) | list | length }}
{{ rows | selectattr('k', 'equalto', 'b') | map(attribute='v') | join(',') }} {{ rows | rejectattr('k', 'eq', 'b') | map(attribute='v') | join('-') }} {{ [0, 1, '', 'a'] | select | list }} {{ [1, 2, 3] | reject('odd') | list }} {{ [1, 2, 3] | select('>', 1) | list }} {{ rows | join(', ', attribute='k') }}
{% for g, l in rows | groupby('k') %}{{ g }}:{{ l | map(attribute='v') | list }} {% endfor %}{% for g in rows | groupby('k', case_sensitive=true) %}{{ g.grouper }}{{ g.list | length }} {% endfor %}
{{ range(7) | batch(3) | list }} {{ range(7) | batch(3, 'x') | list }} {{ range(7) | slice(3) | list }} {{ range(7) | slice(3, 'x') | list }} {{ range(5) | list }} {{ range(5, 1, -2) | list }}
{{ [1, 2, 3] | sum }} {{ rows[:3] | sum(attribute='v') }} {{ [[1], [2]] | sum(start=[]) }} {{ [3, 1] | min }} {{ [3, 1] | max }} {{ ['b', 'A'] | min }} {{ [1, 2] | first }} {{ [1, 2] | last }} {{ [] | first }}| {{ 'abc' | first }} {{ 'abc' | reverse }} {{ [1, 2] | reverse | list }}
{{ '12' | int }} {{ '1.9' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 1.9 | int }} {{ '1.5' | float }} {{ 'x' | float }} {{ 3 | float }} {{ 2.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ -1.5 | abs }} {{ '0x1f' | int(0, 16) }} {{ true | int }}
{{ missing | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }} {{ none | d('x') }} {{ missing | default }}| {{ nested.zz | default(nested.t) }} {{ '<a href="x">&\'' | e }} {{ 5 | string + 'x' }} {{ 'a b/ü?' | urlencode }} {{ {'a b': 1, 'c': '&/'} | urlencode }}
{{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1, 'a': 2} | dictsort(by='value') }} {{ {'b': 1, 'A': 2} | dictsort(true) }} {{ {'a': 1} | items | list }} {{ {'x': {'y': 2}} | attr('x') }}| {{ dict(a=1, b=2) }} {{ dict({'a': 1}, b=2) }}
{{ nested | tojson }} {{ nested.list | tojson(indent=2) }} {{ {'b': 1, 'a': '<é😀>\u2028\x7f\x00'} | tojson }} {{ {'b': 1, 'a': 'é😀'} | tojson(ensure_ascii=true, sort_keys=true) }} {{ [] | tojson(indent=4) }} {{ {} | tojson(indent=4) }} {{ {'a': [{}]} | tojson(indent=1, separators=(',', ': ')) }} {{ 'x"\\/' | tojson }} {{ 1.0 | tojson }} {{ {1: 2, 2.5: 4} | tojson }} {{ [1, 2] | tojson(true, 1) }} {{ (1, 2) | tojson }}
{{ missing | tojson }}
{{ missing.x }}
{{ missing + 'a' }}
{{ 'a' + 1 }}
{{ none + 'a' }}
{{ none.x }}|{{ none['x'] }}|{{ 5['x'] }}
{{ 1 < 'a' }}
{{ [1] + (2,) }}
{{ missing }}{{ missing | upper }}{{ missing | length }}{{ missing == missing }}{{ missing is defined }}{% for x in missing %}x{% endfor %}{{ 'a' in missing }}{{ missing | list }}{{ missing ~ 'a' }}
{{ messages.append(1) }}
{{ nested.update({}) }}
{{ nested.__class__ }}
{{ ''.__class__.__mro__ }}
{{ 'x'.format.__globals__ }}
{{ 1 is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is sequence }} {{ 'a' is iterable }} {{ 5 is iterable }} {{ none is none }} {{ missing is undefined }} {{ range is callable }} {{ 4 is even }} {{ 3 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is sameas true }} {{ true is sameas true }} {{ 'a' is in ['a'] }} {{ 'AB' is upper }} {{ 'ab' is lower }} {{ 2 is gt 1 }} {{ 2 is ne 2 }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ false is false }} {{ 1 is true }}
{{ 1 is not none and 2 is defined }} {{ not 1 is none }} {{ 'a' is string and 'b' is not number }} {{ [1] is not mapping }}
{{ 3 is eq 3 and 4 is ge 4 }} {{ ('a' is string) ~ 'x' }} {{ 1 if 1 is number else 2 }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.next() }} {% set j = joiner(' | ') %}{{ j() }}a{{ j() }}b{{ j() }}c
{{ [1, 2, 2].count(2) }} {{ [1, 2].index(2) }} {{ (1, 2).count(1) }} {{ [1].copy() }} {{ {'a': 1}.copy() }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'a': 1}.get('b', 2) }} {{ 'b' in {'b': 1} }}
{{ [1, 2] * 2 }} {{ 'ab' * 2 }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'a' ~ 1 ~ none ~ true }} {{ 1 + 2 ~ 'x' }} {{ 2 * 3 ~ 4 }}
{%- for m in messages %}
  {%- if loop.first %}[{% endif %}
  {{ m.role }}
  {%- if not loop.last %},
  {% else %}]{% endif %}
{%- endfor %}
a {#- comment -#} b {# c #} c
	{% if true %}
	tab
	{% endif %}
x {%+ if true %} y{% endif +%}
z
{{ strftime_now('%Y-%m-%d %H:%M:%S %j %a %A %b %B %y %I %p %e %D %F %T %R %w %u %-d %-m %-H %U %W %V %G %C %f %n %t %h %x %X %c %% %k %l %r') }}
{% generation %}a{% set q = 1 %}{% endgeneration %}{{ q }}
{{ raise_exception('no: ' ~ 1) }}
{% include 'x' %}
{% do x %}
{{ x | nosuch }}
{{ x is nosuch }}
{{ (1, 2 }}
{% for x in [1] %}
{% endif %}
{{ [1, 2,] }}{{ (1,) }}{{ {'a': 1,} }}{{ [] == [] }}{{ {'a': 1} == {'a': 1} }}{{ (1,) == [1] }}{{ 'a' == 1 }}
{{ messages[0].content | trim }}{{ messages[0]['content'].strip() | length }}{{ (messages | last).role }}{{ messages | map(attribute='content') | map('length') | list }}
{{ "a" if messages[-1].role == "user" and not messages[-1].content else "b" }}{{ messages[2].tool_calls[0].function.arguments | tojson }}
{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' -%}{{ system }}
{{ nested.t and 'a' or 'b' }}{{ 0 or '' or 'z' }}{{ 1 and 0 }}{{ not '' }}{{ (not 1) == false }}
{{ -3 | abs }}{{ (-3) | abs }}{{ -1 | string }}{{ 2 * 3 | float }}{{ 2 ** 3 | float }}{{ 'a' ~ 'b' | upper }}{{ -2.5 | round | int }}
{{ rows | map(attribute='v') | list }} {{ rows | map(attribute='x.y', default=0) | list }} {{ ['a', 'b'] | map('upper') | list }} {{ ['a'] | map('replace', 'a', 'z') | list }} {{ rows | map(attribute='k') | unique | list }} {{ rows | selectattr('v') | map(attribute='v') | list }}
{{ [1, 2] * 2 }} {{ 'ab' * 2 }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'a' ~ 1 ~ none ~ true }} {{ 2 * 3 ~ 4 }} {{ 1 + (2 ~ 'x') | length }}
{{ 'ΑΣ ΟΔΟΣ. Σ İI' | lower }} {{ 'ﬁß ŉ' | upper }} {{ 'İ'.lower() | length }} {{ "they're bill's" | title }} {{ "they're".title() }} {{ 'ÀÉ'.capitalize() }}
{% if messages is defined and messages | length > 2 and (messages | first).role == 'system' %}ok{% endif %}{{ loop is defined }}{% for x in [1] %}{{ loop is defined }}{% endfor %}
{%- macro tools(list) -%}
  {%- for t in list %}
    {{- t.k ~ (',' if not loop.last) }}
  {%- endfor %}
{%- endmacro -%}
{{ tools(rows) }}
{% set ns = namespace(a={'x': 1}) %}{% set ns.a = dict(ns.a, y=2) %}{{ ns.a }}{% set ns.b %}block{% endset %}{{ ns.b }}
{{ none | map(attribute='x') | list }}{{ none | selectattr('x') | list }}{{ false | rejectattr('x') | list }}{{ none | select('defined') | list }}{{ 0 | reject | list }}{{ none | map('upper') | join(',') }}
{% for x in [1, 2] %}{% continue %}{% else %}none{% endfor %}{% for x in [1, 2] %}{% break %}{% else %}none{% endfor %}{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% else %}none{% endfor %}
{{ 'abc' | replace('', '-') }}{{ 'é𝒳'.replace('', '-', 2) }}{{ 'aaa'.replace('a', 'b', 1) }}{{ ' a b  c '.rsplit(None, 1) }}{{ ' a b c'.rsplit() }}{{ 'a-b-c'.rsplit('-', maxsplit=1) }}{{ 'a\nb\r\nc'.splitlines(true) }}
{{ rows[:3] | sort(attribute='k,v') | map(attribute='v') | list }}{{ rows[:3] | sort(attribute='x.y,k', reverse=true) | map(attribute='v') | list }}{{ 2 | round }}{{ true | round }}{{ 2 | round(1, 'floor') }}{{ none | center(9) }}|{{ 'ab' | center(5) }}|{{ 5 | urlencode }}{{ none[1:] }}{{ 2 * [1, 2] }}{{ (1, 2) * 2 }}{{ 5 | safe | length }}
{% for m in messages if m.role == 'user' %}{{ loop.index0 }}{{ m.content | e }}{% else %}no{% endfor %}{% for m in messages | selectattr('role', 'in', ['user', 'tool']) %}{{ m.role }}{% endfor %}
""".strip("\n")


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = datetime.datetime(2024, 7, 5, 12, 3, 0).strftime


def templates():
    """A case is a line; lines that continue it begin with white space or are the rest of a block."""
    case = []
    for line in CASES.split("\n"):
        if case and not (line.startswith((" ", "\t", "{%- endfor", "{%- endmacro", "z")) or case[-1].endswith((",", "endmacro -%}"))):
            yield "\n".join(case)
            case = []
        case.append(line)
    yield "\n".join(case)


def main():
    rows = []
    for template in templates():
        try:
            rows.append({"template": template, "text": env.from_string(template).render(**CONTEXT)})
        except Exception as error:
            rows.append({"template": template, "error": f"{type(error).__name__}: {error}"})
    path = pathlib.Path(__file__).with_name("cases.golden.json")
    path.write_text(json.dumps({"jinja2": jinja2.__version__, "context": CONTEXT, "cases": rows}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
