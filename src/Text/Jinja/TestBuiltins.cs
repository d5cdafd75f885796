namespace Memopt.Text.Jinja;

/// <summary>What may follow <c>is</c>.</summary>
internal static class TestBuiltins
{
    public static bool Holds(string name, object? value, List<object?> arguments)
    {
        RenderCost.Spend(RenderCost.Size(value));
        object? First() =>
            arguments.Count > 0 ? arguments[0] : throw new JinjaException($"the test '{name}' needs a value");
        return name switch
        {
            "defined" => value is not Undefined,
            "undefined" => value is Undefined,
            "none" => value is null,
            "string" => value is string,
            "mapping" => value is DictValue,
            "iterable" => value is string or List<object?> or DictValue or Undefined,
            "sequence" => value is string or List<object?> or DictValue or Undefined,
            "number" => value is bool or long or double,
            "integer" => value is long,
            "float" => value is double,
            "boolean" => value is bool,
            "true" => value is true,
            "false" => value is false,
            "callable" => value is Callable or LoopValue { Again: not null },
            "odd" => Values.Whole(value) % 2 != 0,
            "even" => Values.Whole(value) % 2 == 0,
            "divisibleby" => Values.Whole(value) % Values.Whole(First()) == 0,
            "lower" => Strings.IsCased(Values.Print(value), upper: false),
            "upper" => Strings.IsCased(Values.Print(value), upper: true),
            "in" => Operators.Contains(First(), value),
            "equalto" or "eq" or "==" => Values.Same(value, First()),
            "ne" or "!=" => !Values.Same(value, First()),
            "gt" or "greaterthan" or ">" => Values.Order(value, First()) > 0,
            "ge" or ">=" => Values.Order(value, First()) >= 0,
            "lt" or "lessthan" or "<" => Values.Order(value, First()) < 0,
            "le" or "<=" => Values.Order(value, First()) <= 0,
            // One object: for what has no parts, one value of one type.
            "sameas" => ReferenceEquals(value, First())
                || value?.GetType() == First()?.GetType()
                    && value is bool or long or double or string
                    && Values.Same(value, First()),
            "filter" => value is string filter && Filters.Knows(filter),
            "test" => value is string test && Knows(test),
            "escaped" => false,
            _ => throw new JinjaException($"the test '{name}' is not supported"),
        };
    }

    private static bool Knows(string name) =>
        name
            is "defined"
                or "undefined"
                or "none"
                or "string"
                or "mapping"
                or "iterable"
                or "sequence"
                or "number"
                or "integer"
                or "float"
                or "boolean"
                or "true"
                or "false"
                or "callable"
                or "odd"
                or "even"
                or "divisibleby"
                or "lower"
                or "upper"
                or "in"
                or "equalto"
                or "eq"
                or "=="
                or "ne"
                or "!="
                or "gt"
                or "greaterthan"
                or ">"
                or "ge"
                or ">="
                or "lt"
                or "lessthan"
                or "<"
                or "le"
                or "<="
                or "sameas"
                or "filter"
                or "test"
                or "escaped";
}
