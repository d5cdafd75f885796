using System.Globalization;

namespace Memopt.Text.Jinja;

/// <summary>The part that reads expressions, in Jinja's order of precedence.</summary>
internal sealed partial class Parser
{
    /// <summary>An expression, or several with commas between them, which make a tuple.</summary>
    private Expression Tuple()
    {
        var first = Expression();
        if (Now is not { Kind: TokenKind.Symbol, Value: "," })
            return first;
        var items = new List<Expression> { first };
        while (Take(","))
        {
            if (Now.Kind is TokenKind.CloseTag or TokenKind.CloseOutput)
                break;
            items.Add(Expression());
        }
        return new Expression.List(items, IsTuple: true);
    }

    private Expression Expression()
    {
        if (++depth > Deepest)
            throw new JinjaException($"line {Now.Line}: nested too deeply");
        var value = Or();
        while (Take("if"))
        {
            var test = Or();
            value = new Expression.Choice(test, value, Take("else") ? Expression() : null);
        }
        depth--;
        return value;
    }

    private Expression Or()
    {
        var left = And();
        while (Take("or"))
            left = new Expression.Binary("or", left, And());
        return left;
    }

    private Expression And()
    {
        var left = Not();
        while (Take("and"))
            left = new Expression.Binary("and", left, Not());
        return left;
    }

    private Expression Not()
    {
        if (!Take("not"))
            return Comparison();
        if (++depth > Deepest)
            throw new JinjaException($"line {Now.Line}: nested too deeply");
        var of = Not();
        depth--;
        return new Expression.Unary("not", of);
    }

    private Expression Comparison()
    {
        var first = Sum();
        var rest = new List<(string, Expression)>();
        while (true)
        {
            var symbol = Now.Value;
            if (
                Now.Kind == TokenKind.Symbol
                && symbol is "==" or "!=" or "<" or ">" or "<=" or ">="
                && Now.Kind == TokenKind.Symbol
            )
            {
                at++;
                rest.Add((symbol, Sum()));
            }
            else if (IsName("in"))
            {
                at++;
                rest.Add(("in", Sum()));
            }
            else if (IsName("not") && tokens[at + 1] is { Kind: TokenKind.Name, Value: "in" })
            {
                at += 2;
                rest.Add(("not in", Sum()));
            }
            else
                return rest.Count == 0 ? first : new Expression.Compare(first, rest);
        }
    }

    private Expression Sum()
    {
        var left = Join();
        while (Now.Kind == TokenKind.Symbol && Now.Value is "+" or "-")
            left = new Expression.Binary(tokens[at++].Value, left, Join());
        return left;
    }

    private Expression Join()
    {
        var left = Product();
        while (Take("~"))
            left = new Expression.Binary("~", left, Product());
        return left;
    }

    private Expression Product()
    {
        var left = Power();
        while (Now.Kind == TokenKind.Symbol && Now.Value is "*" or "/" or "//" or "%")
            left = new Expression.Binary(tokens[at++].Value, left, Power());
        return left;
    }

    /// <summary>Binds weaker than a sign and from the left, in Jinja as not in Python: -2 ** 2 is 4.</summary>
    private Expression Power()
    {
        var left = Unary();
        while (Take("**"))
            left = new Expression.Binary("**", left, Unary());
        return left;
    }

    private Expression Unary(bool filters = true)
    {
        if (++depth > Deepest)
            throw new JinjaException($"line {Now.Line}: nested too deeply");
        Expression value;
        if (Now.Kind == TokenKind.Symbol && Now.Value is "-" or "+")
            value = new Expression.Unary(tokens[at++].Value, Unary(filters: false));
        else
            value = Postfix(Primary());
        if (filters)
            value = FiltersAndTests(value);
        depth--;
        return value;
    }

    private Expression Primary()
    {
        var token = Now;
        switch (token.Kind)
        {
            case TokenKind.String:
                at++;
                var begin = at - 1;
                while (Now.Kind == TokenKind.String)
                    at++;
                return new Expression.Literal(string.Concat(tokens[begin..at].Select(part => part.Value)));
            case TokenKind.Integer:
                at++;
                return new Expression.Literal(Integer(token));
            case TokenKind.Float:
                at++;
                return new Expression.Literal(double.Parse(token.Value, NumberStyles.Float));
            case TokenKind.Name:
                at++;
                return token.Value switch
                {
                    "true" or "True" => new Expression.Literal(true),
                    "false" or "False" => new Expression.Literal(false),
                    "none" or "None" => new Expression.Literal(null),
                    _ => new Expression.Name(token.Value),
                };
        }
        if (Take("("))
            return Items(")", tuple: true);
        if (Take("["))
            return Items("]", tuple: false);
        if (!Take("{"))
            throw Unexpected("a value");
        var entries = new List<(Expression, Expression)>();
        while (!Take("}"))
        {
            if (entries.Count > 0)
            {
                Need(",");
                if (Take("}"))
                    break;
            }
            var key = Expression();
            Need(":");
            entries.Add((key, Expression()));
        }
        return new Expression.Dict(entries);
    }

    private static long Integer(Token token)
    {
        var digits = token.Value;
        var (style, skip) =
            digits.Length < 2
                ? (NumberStyles.None, 0)
                : char.ToLowerInvariant(digits[1]) switch
                {
                    'x' => (NumberStyles.AllowHexSpecifier, 2),
                    'b' => (NumberStyles.AllowBinarySpecifier, 2),
                    _ => (NumberStyles.None, 0),
                };
        return long.TryParse(digits.AsSpan(skip), style, CultureInfo.InvariantCulture, out var whole) && whole >= 0
            ? whole
            : throw new JinjaException($"line {token.Line}: {digits} is too large");
    }

    private Expression Items(string close, bool tuple)
    {
        var items = new List<Expression>();
        var comma = false;
        while (!Take(close))
        {
            if (items.Count > 0)
            {
                Need(",");
                comma = true;
                if (Take(close))
                    break;
            }
            items.Add(Expression());
        }
        return tuple && items.Count == 1 && !comma ? items[0] : new Expression.List(items, tuple);
    }

    private Expression Postfix(Expression value)
    {
        while (true)
        {
            if (Take("."))
            {
                value =
                    Now.Kind == TokenKind.Integer
                        ? new Expression.Index(value, new Expression.Literal(Integer(tokens[at++])))
                        : new Expression.Attribute(value, Need(TokenKind.Name).Value);
            }
            else if (Take("["))
                value = Subscript(value);
            else if (Now is { Kind: TokenKind.Symbol, Value: "(" })
                value = new Expression.Call(value, CallArguments());
            else
                return value;
        }
    }

    private Expression Subscript(Expression of)
    {
        var parts = new Expression?[3];
        var part = 0;
        while (!Take("]"))
        {
            if (Take(":"))
            {
                if (++part > 2)
                    throw Unexpected("']'");
            }
            else if (parts[part] is null)
                parts[part] = Expression();
            else
                throw Unexpected("']'");
        }
        if (part > 0)
            return new Expression.Slice(of, parts[0], parts[1], parts[2]);
        return new Expression.Index(of, parts[0] ?? throw Unexpected("an index"));
    }

    private Arguments CallArguments()
    {
        Need("(");
        var (positional, named) = (new List<Expression>(), new List<(string, Expression)>());
        Expression? rest = null,
            namedRest = null;
        var first = true;
        while (!Take(")"))
        {
            if (!first)
            {
                Need(",");
                if (Take(")"))
                    break;
            }
            first = false;
            if (rest is null && Take("*"))
                rest = Expression();
            else if (namedRest is null && Take("**"))
                namedRest = Expression();
            else if (Now.Kind == TokenKind.Name && tokens[at + 1] is { Kind: TokenKind.Symbol, Value: "=" })
            {
                var name = tokens[at].Value;
                at += 2;
                named.Add((name, Expression()));
            }
            else
                positional.Add(Expression());
        }
        return new(positional, named, rest, namedRest);
    }

    private Expression FiltersAndTests(Expression value)
    {
        while (true)
        {
            if (Take("|"))
                value = FilterName(value);
            else if (Take("is"))
                value = TestName(value);
            else if (
                value is Memopt.Text.Jinja.Expression.Filter or Memopt.Text.Jinja.Expression.Test
                && Now is { Kind: TokenKind.Symbol, Value: "(" }
            )
                value = new Expression.Call(value, CallArguments());
            else
                return value;
        }
    }

    private Expression.Filter FilterName(Expression? of)
    {
        var name = Need(TokenKind.Name).Value;
        return new(of, name, Now is { Kind: TokenKind.Symbol, Value: "(" } ? CallArguments() : Arguments.None);
    }

    private Expression.Test TestName(Expression of)
    {
        var negated = Take("not");
        var name = Need(TokenKind.Name).Value;
        var arguments = Arguments.None;
        if (Now is { Kind: TokenKind.Symbol, Value: "(" })
            arguments = CallArguments();
        else if (
            Now.Kind is TokenKind.String or TokenKind.Integer or TokenKind.Float
            || Now is { Kind: TokenKind.Symbol, Value: "[" or "{" }
            || Now.Kind == TokenKind.Name && Now.Value is not ("else" or "or" or "and" or "is" or "if" or "in" or "not")
        )
            arguments = new([Postfix(Primary())], []);
        return new(of, name, arguments, negated);
    }
}
