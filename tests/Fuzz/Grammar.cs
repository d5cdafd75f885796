using System.Globalization;
using System.Text;

namespace Memopt.Fuzz;

/// <summary>Makes inputs from a grammar: what a mutation of bytes would seldom reach.</summary>
internal sealed class Grammar(Random random)
{
    private int left = 200; // expressions that may still be made

    private string Of(params string[] choices) => choices[random.Next(choices.Length)];

    private string Some(Func<string> part, string separator, int most = 4) =>
        string.Join(separator, Enumerable.Range(0, random.Next(most)).Select(_ => part()));

    public string Template()
    {
        var output = new StringBuilder("{% set ns = namespace(a=[1], t='ab', d={'k': 1}) %}");
        for (var statements = random.Next(1, 8); statements > 0; statements--)
            output.Append(Statement(3));
        return output.ToString();
    }

    private string Statement(int depth)
    {
        string Body() => depth == 0 ? "x" : Some(() => Statement(depth - 1), "");
        return random.Next(14) switch
        {
            0 => $"{{% if {Expression()} %}}{Body()}{{% elif {Expression()} %}}{Body()}{{% else %}}{Body()}{{% "
                + $"endif %}}",
            1 or 2 => $"{{% for x in {Expression()} %}}{Body()}{{{{ loop."
                + $"{Of("index", "last", "previtem", "length", "cycle(1,2)", "changed(x)")} }}}}{{% endfor %}}",
            3 => $"{{% for i in range({Of("3", "60", "1000", "1000000")}) %}}{Body()}{{% endfor %}}",
            4 => $"{{% set ns.{Of("a", "t", "d")} = {Expression()} %}}",
            5 => $"{{% for i in range({Of("30", "60", "5000")}) %}}{{% set ns.a = [ns.a, ns.a] %}}{{% endfor %}}",
            6 => $"{{% for i in range({Of("30", "60")}) %}}{{% set ns.t = ns.t ~ ns.t %}}{{% endfor %}}",
            7 => $"{{% macro m(x, y={Expression()}) %}}{Body()}{{{{ "
                + $"{Of("m(x)", "x", "varargs", "kwargs", "caller()")} }}}}{{% endmacro %}}{{{{ m({Expression()}) "
                + $"}}}}",
            8 => $"{{% set v %}}{Body()}{{% endset %}}",
            9 => $"{{% filter {Of(Filters)} %}}{Body()}{{% endfilter %}}",
            10 => $"{{% generation %}}{Body()}{{% endgeneration %}}",
            11 => $"{{% set x = {Expression()} %}}",
            _ => $"{{{{ {Expression()} }}}}",
        };
    }

    private static readonly string[] Filters = (
        "abs attr batch capitalize center count default dictsort escape first float format groupby indent int "
        + "items join last length list lower map max min reject rejectattr replace reverse round select selectattr "
        + "slice sort string sum title tojson trim truncate unique upper urlencode wordcount"
    ).Split(' ');

    private static readonly string[] Names =
    [
        "x",
        "ns.a",
        "ns.t",
        "ns.d",
        "messages",
        "messages[0].content",
        "messages[-1]",
        "tools",
        "bos_token",
        "loop",
        "range",
        "dict",
        "nosuch",
        "i",
        "m",
        "ns",
    ];

    private static readonly string[] Methods = (
        "center ljust rjust zfill swapcase casefold index rindex rpartition isascii strip lstrip rstrip split "
        + "rsplit splitlines partition startswith endswith upper lower title capitalize replace find rfind count "
        + "join format isdigit isalpha isalnum isspace isupper islower removeprefix removesuffix items keys values "
        + "copy get"
    ).Split(' ');

    private string Expression()
    {
        if (--left < 0)
            return "1";
        return random.Next(17) switch
        {
            0 => Of(
                "0",
                "1",
                "-1",
                "3.5",
                "1e308",
                "9223372036854775807",
                "(-9223372036854775807-1)",
                "none",
                "true",
                "10**9",
                "1000000"
            ),
            1 => Of(
                "''",
                "'a'",
                "'a b'",
                "'\\ud83d\\ude00'",
                "'{}'",
                "'{:>9}'",
                "'%s'",
                "'%5d'",
                "'a,b'",
                "'%Y'",
                "'('",
                "'\\n'"
            ),
            2 => $"({Of("'a'", "'ab '", "'a\\n'", "'\u03a3'", "[1]", "[[1]]", "(1,)")} * "
                + $"{Of("3", "1000", "1000000", "30000000", "-1")})",
            3 => $"[{Some(Expression, ", ")}]",
            4 => $"({Some(Expression, ", ")},)",
            5 => $"{{{Some(() => $"{Of("'a'", "'b'", "1", "x")}: {Expression()}", ", ")}}}",
            6 or 7 => $"({Expression()} "
                + $"{Of("+", "-", "*", "/", "//", "%", "**", "~", "and", "or", "==", "!=", "<", ">=", "in", "not in")} "
                + $"{Expression()})",
            8 or 9 => $"({Expression()}|{Of(Filters)}{Arguments()})",
            10 => $"({Expression()}|{Of("map", "select", "selectattr", "reject", "sort", "groupby")}("
                + $"{Of("'upper'", "attribute='a'", "'in', x", "'length'", "'map','first'", "'content','eq','a'", "true")}))",
            11 or 12 => $"{Of("ns.t", "'a b'", "messages[0].content", "ns.d", "ns.a")}.{Of(Methods)}"
                + $"{(random.Next(5) == 0 ? "" : $"({Some(Expression, ", ")})")}",
            13 => $"{Of(Names)}[{Some(Expression, ":", 4)}]",
            14 => $"({Expression()} is "
                + $"{Of("defined", "none", "string", "mapping", "iterable", "odd", "divisibleby", "in", "sameas", "eq", "lt", "upper")} "
                + $"{Of("", "x", "3", "0", "'a'")})",
            15 => $"({Expression()} if {Expression()} else {Expression()})",
            _ => Of(Names),
        };
    }

    private string Arguments() =>
        random.Next(2) == 0
            ? ""
            : "("
                + $"{Some(() => random.Next(5) == 0 ? $"{Of("indent", "width", "attribute", "reverse", "sep", "count")}={Expression()}" : Expression(), ", ")})";

    /// <summary>A JSON value, with keys that a format knows.</summary>
    public string Json(string[] keys, int depth = 4)
    {
        if (--left < 0)
            return "0";
        var kind = random.Next(depth > 0 ? 12 : 8);
        return kind switch
        {
            0 => Of("0", "1", "-1", "2", "0.5", "1e999", "4294967296", "9223372036854775808", "1e-9", "32"),
            1 => Of("null", "true", "false"),
            < 6 => "\""
                + $"{Of("", "a", "user", "assistant", "lora", "auto", "\\ud800", "\\u0000", "../../outside/x", "/tmp/x", "a.b.c", "1", keys[random.Next(keys.Length)])}\"",
            6 => $"\"{new string('x', random.Next(1000))}\"",
            7 => $"\"{keys[random.Next(keys.Length)]}\"",
            8 or 9 => $"[{Some(() => Json(keys, depth - 1), ",", 6)}]",
            _ => Object(keys, depth),
        };
    }

    public string Object(string[] keys, int depth = 4) =>
        $"{{"
        + $"{Some(() => $"\"{(random.Next(10) == 0 ? "zz" : keys[random.Next(keys.Length)])}\":{Json(keys, depth - 1)}", ",", 9)}}}";

    public string Filter()
    {
        string Value() =>
            Of(
                "1",
                "-1",
                "1e9",
                "'a'",
                "\"b\"",
                "'%a%'",
                "('a', 'b')",
                "()",
                "finished",
                "2024-01-01",
                "true",
                "'\u001b'",
                new string('9', 400)
            );
        string Term() =>
            $"{Of("metrics.loss", "params.`a b`", "tags.x", "status", "attributes.start_time", "metrics.`loss`@3", "id", "name", "nosuch.x", "duration", "artifact_uri")} "
            + $"{Of("=", "!=", "<", ">", ">=", "like", "ilike", "in", "not in", "is null", "is not null", "between")} "
            + $"{Value()}";
        string Whole(int depth) =>
            depth == 0 || random.Next(3) == 0
                ? Term()
                : $"{Of("", "not ", "(")}{Whole(depth - 1)} {Of("and", "or", "AND", ")")} {Whole(depth - 1)}";
        return Whole(random.Next(6))
            + Of("", " order by metrics.loss desc", " order by status, name", " limit 3", " order by");
    }

    public string Number() => random.NextInt64().ToString(CultureInfo.InvariantCulture);
}
