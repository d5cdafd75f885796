using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Text;
using Memopt.Core;

namespace Memopt.Text.Jinja;

/// <summary>Runs a template's tree. It sees only the values it is given, and what it costs is bounded
/// (<see cref="RenderCost"/>).</summary>
internal sealed partial class Interpreter
{
    private const int DeepestCall = 100;
    private const int StepWork = 64; // what a step takes, in characters that are copied

    private enum Flow
    {
        On,
        Break,
        Continue,
    }

    private sealed class Scope(Scope? parent)
    {
        private readonly Dictionary<string, object?> values = [];

        public void Set(string name, object? value) => values[name] = value;

        public object? Get(string name) =>
            values.TryGetValue(name, out var value) ? value
            : parent is not null ? parent.Get(name)
            : new Undefined(name);
    }

    private readonly List<(int Start, int End)> generated = [];
    private readonly StringBuilder root = new();
    private StringBuilder output;
    private Scope scope = new(null);
    private int calls;

    private Interpreter() => output = root;

    /// <summary>The text and the stretches of it that stood in generation blocks.</summary>
    public static (string Text, IReadOnlyList<(int Start, int End)> Generated) Run(
        IReadOnlyList<Statement> template,
        IEnumerable<(string Name, object? Value)> globals
    )
    {
        var run = new Interpreter();
        foreach (var (name, value) in Builtins.Globals.Concat(globals))
            run.scope.Set(name, value);
        run.scope = new(run.scope);
        try
        {
            run.Execute(template);
        }
        catch (InvalidOperationException error)
            when (error.InnerException is JinjaException or UserFault or OperationCanceledException)
        {
            ExceptionDispatchInfo.Throw(error.InnerException); // what a comparison says while a list is sorted
        }
        catch (Exception error)
            when (error is InsufficientExecutionStackException
                || error.InnerException is InsufficientExecutionStackException
            )
        {
            throw new JinjaException("values or calls that are nested too deeply");
        }
        catch (ArithmeticException error)
        {
            // the largest negative integer has no positive one; a division by zero
            throw new JinjaException(error.Message);
        }
        return (run.root.ToString(), run.generated);
    }

    private static void Step() => RenderCost.Spend(StepWork);

    private static object? Bounded(object? value)
    {
        RenderCost.Spend(RenderCost.Size(value));
        return value is string { Length: > RenderCost.Text } or List<object?> { Count: > RenderCost.List }
            ? throw RenderCost.TooLong
            : value;
    }

    private Flow Execute(IReadOnlyList<Statement> body)
    {
        foreach (var statement in body)
        {
            Step();
            var flow = Execute(statement);
            if (flow != Flow.On)
                return flow;
        }
        return Flow.On;
    }

    private void Write(string text)
    {
        if (output.Length + text.Length > RenderCost.Text)
            throw new JinjaException($"more than {RenderCost.Text} characters of output");
        RenderCost.Spend(text.Length);
        output.Append(text);
    }

    private Flow Execute(Statement statement)
    {
        RuntimeHelpers.EnsureSufficientExecutionStack();
        switch (statement)
        {
            case Statement.Text text:
                Write(text.Value);
                break;
            case Statement.Output print:
                Write(Values.Print(Evaluate(print.Value)));
                break;
            case Statement.If choice:
                foreach (var (test, body) in choice.Branches)
                {
                    if (test is null || Values.True(Evaluate(test)))
                        return Execute(body);
                }
                break;
            case Statement.For loop:
                Loop(loop);
                break;
            case Statement.Set set:
                Assign(set.Target, Evaluate(set.Value));
                break;
            case Statement.SetBlock block:
                Assign(block.Target, Filtered(block.Filters, Captured(block.Body)));
                break;
            case Statement.FilterBlock block:
                Write(Values.Print(Filtered(block.Filters, Captured(block.Body))));
                break;
            case Statement.Macro macro:
                scope.Set(macro.Name, Function(macro, scope));
                break;
            case Statement.CallBlock block:
                Write(Values.Print(Invoke(block.Call, Function(block.Caller, scope))));
                break;
            case Statement.With block:
                // The values are those outside: no set sees another.
                var values = block.Sets.Select(set => Evaluate(set.Value)).ToList();
                return Scoped(() =>
                {
                    for (var i = 0; i < values.Count; i++)
                        Assign(block.Sets[i].Target, values[i]);
                    return Execute(block.Body);
                });
            case Statement.GenerationBlock block:
                var start = output.Length;
                var flow = Scoped(() => Execute(block.Body));
                if (output == root && output.Length > start)
                    generated.Add((start, output.Length));
                return flow;
            case Statement.Jump jump:
                return jump.Continue ? Flow.Continue : Flow.Break;
        }
        return Flow.On;
    }

    private Flow Scoped(Func<Flow> run)
    {
        var outer = scope;
        scope = new(outer);
        var flow = run();
        scope = outer;
        return flow;
    }

    private string Captured(Action run)
    {
        var outer = output;
        output = new();
        run();
        var text = output.ToString();
        output = outer;
        return text;
    }

    private string Captured(IReadOnlyList<Statement> body) => Captured(() => Scoped(() => Execute(body)));

    private object? Filtered(IReadOnlyList<Expression.Filter> filters, object? value) =>
        filters.Aggregate(value, (current, filter) => ApplyFilter(filter.Key, current, filter.Arguments));

    private void Assign(Expression target, object? value)
    {
        switch (target)
        {
            case Expression.Name name:
                scope.Set(name.Identifier, value);
                break;
            case Expression.Attribute attribute:
                if (Evaluate(attribute.Of) is not NamespaceValue space)
                    throw new JinjaException($"only a namespace's attributes can be set, '{attribute.Key}' is not one");
                space.Values[attribute.Key] = value;
                break;
            case Expression.List list:
                var items = Values.Items(value);
                if (items.Count != list.Items.Count)
                    throw new JinjaException($"{items.Count} values for {list.Items.Count} names");
                for (var i = 0; i < items.Count; i++)
                    Assign(list.Items[i], items[i]);
                break;
        }
    }

    private void Loop(Statement.For loop) => Loop(loop, Evaluate(loop.Over), 1);

    private void Loop(Statement.For loop, object? over, int depth)
    {
        var outer = scope;
        var items = loop.Where is null ? Values.Items(over) : [.. Values.Items(over).Where(Wanted)];
        var variable = new LoopVariable(items, depth, loop.Recursive ? Recursion(loop, outer, depth) : null);
        var ended = false;
        for (var i = 0; i < items.Count; i++)
        {
            Step();
            Bind(new(outer), loop.Target, items[i]);
            scope.Set("loop", variable.At(i));
            var flow = Execute(loop.Body);
            if (flow == Flow.Break)
                break;
            ended |= flow != Flow.Continue;
        }
        scope = outer;
        // As Jinja2 has it: a body that was always left early counts as none.
        if (!ended)
            Execute(loop.Else);

        bool Wanted(object? item)
        {
            Bind(new(outer), loop.Target, item);
            return Values.True(Evaluate(loop.Where!));
        }
    }

    /// <summary>What <c>loop(…)</c> does in a recursive loop: the same loop over other items, whose text it
    /// gives.</summary>
    private Callable Recursion(Statement.For loop, Scope outer, int depth) =>
        (given, _) =>
            Nested(
                "a recursive loop calls itself",
                () =>
                    Captured(() =>
                    {
                        var inner = scope;
                        scope = outer;
                        Loop(loop, given.Count > 0 ? given[0] : null, depth + 1);
                        scope = inner;
                    })
            );

    private void Bind(Scope into, Expression target, object? item)
    {
        scope = into;
        Assign(target, item);
    }

    private T Nested<T>(string what, Func<T> run)
    {
        if (++calls > DeepestCall)
            throw new JinjaException($"{what} too deeply");
        var result = run();
        calls--;
        return result;
    }

    private Callable Function(Statement.Macro macro, Scope defined) =>
        (given, named) =>
            Nested(
                $"macro '{macro.Name}' calls itself",
                () =>
                {
                    if (given.Count > macro.Parameters.Count && !macro.Varargs)
                        throw new JinjaException(
                            $"macro '{macro.Name}' takes {macro.Parameters.Count} arguments, not {given.Count}"
                        );
                    var outer = scope;
                    scope = new(defined);
                    for (var i = 0; i < macro.Parameters.Count; i++)
                    {
                        var (name, fallback) = macro.Parameters[i];
                        if (i < given.Count && named.ContainsKey(name))
                            throw new JinjaException($"macro '{macro.Name}' got '{name}' twice");
                        scope.Set(
                            name,
                            i < given.Count ? given[i]
                                : named.TryGetValue(name, out var value) ? value
                                : fallback is null ? new Undefined(name)
                                : Evaluate(fallback)
                        );
                    }
                    var others = named
                        .Where(entry =>
                            entry.Key != "caller" && macro.Parameters.All(parameter => parameter.Name != entry.Key)
                        )
                        .ToList();
                    if (others.Count > 0 && !macro.Kwargs)
                        throw new JinjaException($"macro '{macro.Name}' has no argument '{others[0].Key}'");
                    if (macro.Varargs)
                        scope.Set("varargs", new TupleValue(given.Skip(macro.Parameters.Count)));
                    if (macro.Kwargs)
                        scope.Set("kwargs", Values.Dict(others.Select(entry => ((object)entry.Key, entry.Value))));
                    if (macro.Parameters.All(parameter => parameter.Name != "caller"))
                        scope.Set(
                            "caller",
                            named.TryGetValue("caller", out var caller) ? caller : new Undefined("caller")
                        );
                    var text = Captured(() => Execute(macro.Body));
                    scope = outer;
                    return text;
                }
            );
}
