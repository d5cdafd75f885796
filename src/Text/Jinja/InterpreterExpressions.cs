using System.Runtime.CompilerServices;

namespace Memopt.Text.Jinja;

/// <summary>The part that finds the values of expressions.</summary>
internal sealed partial class Interpreter
{
    private (List<object?> Positional, Dictionary<string, object?> Named) Evaluate(Arguments given)
    {
        var positional = given.Positional.Select(Evaluate).ToList();
        var named = new Dictionary<string, object?>();
        void Name(string key, object? value)
        {
            if (!named.TryAdd(key, value))
                throw new JinjaException($"the argument '{key}' is given twice");
        }

        foreach (var (name, value) in given.Named)
            Name(name, Evaluate(value));
        if (given.Rest is not null)
            positional.AddRange(Values.Items(Evaluate(given.Rest)));
        if (given.NamedRest is not null)
        {
            if (Evaluate(given.NamedRest) is not DictValue more)
                throw new JinjaException("** needs a dict");
            foreach (var (key, value) in more)
                Name(Values.Print(key), value);
        }
        return (positional, named);
    }

    private object? Invoke(Expression.Call call, Callable? caller = null)
    {
        var callee = Evaluate(call.Callee);
        if ((callee as LoopValue)?.Again is { } again)
            callee = again;
        if (callee is not Callable function)
            throw new JinjaException($"{Values.TypeName(callee)} cannot be called");
        var (positional, named) = Evaluate(call.Arguments);
        if (caller is not null)
            named["caller"] = caller;
        return Bounded(function(positional, named));
    }

    private object? ApplyFilter(string name, object? value, Arguments given)
    {
        var (positional, named) = Evaluate(given);
        return Bounded(Filters.Apply(name, value, positional, named));
    }

    private object? Evaluate(Expression expression)
    {
        RuntimeHelpers.EnsureSufficientExecutionStack();
        Step();
        switch (expression)
        {
            case Expression.Literal literal:
                return literal.Value;
            case Expression.Name name:
                return scope.Get(name.Identifier);
            case Expression.List list:
                return list.IsTuple
                    ? new TupleValue(list.Items.Select(Evaluate))
                    : list.Items.Select(Evaluate).ToList();
            case Expression.Dict dict:
                return Values.Dict(
                    dict.Items.Select(item =>
                        (Evaluate(item.Key) ?? throw new JinjaException("None as a key"), Evaluate(item.Value))
                    )
                );
            case Expression.Attribute attribute:
                return Operators.Attribute(Evaluate(attribute.Of), attribute.Key);
            case Expression.Index index:
                return Operators.Index(Evaluate(index.Of), Evaluate(index.Key));
            case Expression.Slice slice:
                return Operators.Slice(Evaluate(slice.Of), Bound(slice.Start), Bound(slice.Stop), Bound(slice.Step));
            case Expression.Call call:
                return Invoke(call);
            case Expression.Filter filter:
                return ApplyFilter(filter.Key, Evaluate(filter.Of!), filter.Arguments);
            case Expression.Test test:
                return TestBuiltins.Holds(test.Key, Evaluate(test.Of), Evaluate(test.Arguments).Positional)
                    != test.Negated;
            case Expression.Choice choice:
                return Values.True(Evaluate(choice.When)) ? Evaluate(choice.Then)
                    : choice.Else is null ? new Undefined("")
                    : Evaluate(choice.Else);
            case Expression.Unary { Operator: "not" } not:
                return !Values.True(Evaluate(not.Of));
            case Expression.Unary sign:
                return Signed(Evaluate(sign.Of), negative: sign.Operator == "-");
            case Expression.Binary { Operator: "or" } or:
                return Evaluate(or.Left) is var left && Values.True(left) ? left : Evaluate(or.Right);
            case Expression.Binary { Operator: "and" } and:
                return Evaluate(and.Left) is var first && !Values.True(first) ? first : Evaluate(and.Right);
            case Expression.Binary binary:
                return Bounded(Operators.Operate(binary.Operator, Evaluate(binary.Left), Evaluate(binary.Right)));
            case Expression.Compare compare:
                return Holds(compare);
            default:
                throw new JinjaException($"{expression.GetType().Name} cannot be evaluated");
        }
    }

    private static object Signed(object? number, bool negative)
    {
        if (number is double real)
            return negative ? -real : real;
        return negative ? -Values.Whole(number) : Values.Whole(number);
    }

    /// <summary>Whether all comparisons of a chain hold, <c>1 &lt; x &lt; 3</c>; nothing behind the first that does
    /// not is evaluated.</summary>
    private bool Holds(Expression.Compare chain)
    {
        var before = Evaluate(chain.First);
        foreach (var (symbol, operand) in chain.Rest)
        {
            var after = Evaluate(operand);
            if (!Operators.Compare(symbol, before, after))
                return false;
            before = after;
        }
        return true;
    }

    private long? Bound(Expression? part) =>
        part is null || Evaluate(part) is not { } value ? null : Values.Whole(value);
}
