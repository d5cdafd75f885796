namespace Memopt.Text.Jinja;

/// <summary>A part of a template that yields a value.</summary>
internal abstract record Expression
{
    internal sealed record Literal(object? Value) : Expression;

    internal sealed record Name(string Identifier) : Expression;

    internal sealed record List(IReadOnlyList<Expression> Items, bool IsTuple) : Expression;

    internal sealed record Dict(IReadOnlyList<(Expression Key, Expression Value)> Items) : Expression;

    internal sealed record Attribute(Expression Of, string Key) : Expression;

    internal sealed record Index(Expression Of, Expression Key) : Expression;

    internal sealed record Slice(Expression Of, Expression? Start, Expression? Stop, Expression? Step) : Expression;

    internal sealed record Call(Expression Callee, Arguments Arguments) : Expression;

    internal sealed record Filter(Expression? Of, string Key, Arguments Arguments) : Expression;

    internal sealed record Test(Expression Of, string Key, Arguments Arguments, bool Negated) : Expression;

    internal sealed record Unary(string Operator, Expression Of) : Expression;

    internal sealed record Binary(string Operator, Expression Left, Expression Right) : Expression;

    internal sealed record Compare(Expression First, IReadOnlyList<(string Operator, Expression Right)> Rest)
        : Expression;

    internal sealed record Choice(Expression When, Expression Then, Expression? Else) : Expression;
}

/// <summary>What is given to a call; <c>*list</c> and <c>**dict</c> are spread over the places after the
/// others.</summary>
internal sealed record Arguments(
    IReadOnlyList<Expression> Positional,
    IReadOnlyList<(string Name, Expression Value)> Named,
    Expression? Rest = null,
    Expression? NamedRest = null
)
{
    public static readonly Arguments None = new([], []);
}

/// <summary>A part of a template that prints or decides.</summary>
internal abstract record Statement
{
    internal sealed record Text(string Value) : Statement;

    internal sealed record Output(Expression Value) : Statement;

    internal sealed record If(IReadOnlyList<(Expression? Test, IReadOnlyList<Statement> Body)> Branches) : Statement;

    internal sealed record For(
        Expression Target,
        Expression Over,
        Expression? Where,
        IReadOnlyList<Statement> Body,
        IReadOnlyList<Statement> Else,
        bool Recursive
    ) : Statement;

    internal sealed record Set(Expression Target, Expression Value) : Statement;

    internal sealed record SetBlock(
        Expression Target,
        IReadOnlyList<Expression.Filter> Filters,
        IReadOnlyList<Statement> Body
    ) : Statement;

    internal sealed record Macro(
        string Name,
        IReadOnlyList<(string Name, Expression? Default)> Parameters,
        IReadOnlyList<Statement> Body,
        bool Varargs,
        bool Kwargs
    ) : Statement;

    internal sealed record CallBlock(Expression.Call Call, Macro Caller) : Statement;

    internal sealed record FilterBlock(IReadOnlyList<Expression.Filter> Filters, IReadOnlyList<Statement> Body)
        : Statement;

    internal sealed record With(
        IReadOnlyList<(Expression Target, Expression Value)> Sets,
        IReadOnlyList<Statement> Body
    ) : Statement;

    internal sealed record GenerationBlock(IReadOnlyList<Statement> Body) : Statement;

    internal sealed record Jump(bool Continue) : Statement;
}
