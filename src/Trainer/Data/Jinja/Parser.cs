using System.Globalization;

namespace Memopt.Trainer.Data.Jinja;

/// <summary>Tokens to a tree, by recursive descent in Jinja's order of precedence.</summary>
internal sealed class Parser(List<Token> tokens)
{
    private const int Deepest = 200;

    private int at;
    private int depth;

    public static IReadOnlyList<Statement> Read(string template)
    {
        var parser = new Parser(Lexer.Read(template));
        var body = parser.Body();
        if (parser.Now.Kind != TokenKind.End) throw parser.Unexpected("the end of the template");
        return body;
    }

    private Token Now => tokens[at];

    private JinjaException Unexpected(string wanted) =>
        new($"line {Now.Line}: expected {wanted}, found {(Now.Value.Length > 0 ? $"'{Now.Value}'" : Now.Kind.ToString())}");

    private bool IsName(string name) => Now.Kind == TokenKind.Name && Now.Value == name;

    private bool Take(string value)
    {
        if (Now.Kind is not (TokenKind.Symbol or TokenKind.Name) || Now.Value != value) return false;
        at++;
        return true;
    }

    private void Need(string value)
    {
        if (!Take(value)) throw Unexpected($"'{value}'");
    }

    private Token Need(TokenKind kind)
    {
        if (Now.Kind != kind) throw Unexpected(kind.ToString());
        return tokens[at++];
    }

    /// <summary>Statements up to one of the named tags, whose name is taken, or to the end of the template.</summary>
    private List<Statement> Body(params string[] until)
    {
        if (++depth > Deepest) throw new JinjaException($"line {Now.Line}: nested too deeply");
        var body = new List<Statement>();
        while (Now.Kind != TokenKind.End)
        {
            if (Now.Kind == TokenKind.Text)
            {
                body.Add(new Statement.Text(tokens[at++].Value));
            }
            else if (Now.Kind == TokenKind.OpenOutput)
            {
                at++;
                body.Add(new Statement.Output(Tuple()));
                Need(TokenKind.CloseOutput);
            }
            else
            {
                Need(TokenKind.OpenTag);
                if (until.Contains(Now.Value)) break;
                body.Add(Tag());
            }
        }
        if (until.Length > 0 && Now.Kind == TokenKind.End) throw Unexpected(string.Join(" or ", until));
        depth--;
        return body;
    }

    private List<Statement> BodyTo(string end)
    {
        var body = Body(end);
        Need(end);
        Need(TokenKind.CloseTag);
        return body;
    }

    private Statement Tag()
    {
        var name = Need(TokenKind.Name).Value;
        switch (name)
        {
            case "if": return If();
            case "for": return For();
            case "set": return Set();
            case "macro":
                var macro = Need(TokenKind.Name).Value;
                var parameters = Parameters();
                Need(TokenKind.CloseTag);
                return Macro(macro, parameters, "endmacro");
            case "call":
                var given = Now is { Kind: TokenKind.Symbol, Value: "(" } ? Parameters() : [];
                var call = Expression() as Expression.Call ?? throw Unexpected("a call");
                Need(TokenKind.CloseTag);
                return new Statement.CallBlock(call, Macro("caller", given, "endcall"));
            case "filter":
                var filters = new List<Expression.Filter> { FilterName(null) };
                while (Take("|")) filters.Add(FilterName(null));
                Need(TokenKind.CloseTag);
                return new Statement.FilterBlock(filters, BodyTo("endfilter"));
            case "with": return With();
            case "generation":
                Need(TokenKind.CloseTag);
                return new Statement.Generation(BodyTo("endgeneration"));
            case "break" or "continue":
                Need(TokenKind.CloseTag);
                return new Statement.Jump(name == "continue");
            default: throw new JinjaException($"line {Now.Line}: the tag '{name}' is not supported");
        }
    }

    /// <summary>A macro that speaks of varargs or kwargs takes arguments it has not named.</summary>
    private Statement.Macro Macro(string name, List<(string, Expression?)> parameters, string end)
    {
        var begin = at;
        var body = BodyTo(end);
        bool Says(string word) => tokens.GetRange(begin, at - begin).Any(token => token.Kind == TokenKind.Name && token.Value == word);
        return new(name, parameters, body, Says("varargs"), Says("kwargs"));
    }

    private Statement.If If()
    {
        var branches = new List<(Expression?, IReadOnlyList<Statement>)>();
        Expression? test = Tuple();
        while (true)
        {
            Need(TokenKind.CloseTag);
            branches.Add((test, test is null ? Body("endif") : Body("elif", "else", "endif")));
            if (Take("endif")) break;
            test = Take("elif") ? Tuple() : null;
            if (test is null) Need("else");
        }
        Need(TokenKind.CloseTag);
        return new(branches);
    }

    private Statement.For For()
    {
        var target = Target();
        Need("in");
        // The source is read without its own if, which is the loop's filter.
        var over = Or();
        if (Now is { Kind: TokenKind.Symbol, Value: "," })
        {
            var items = new List<Expression> { over };
            while (Take(",")) items.Add(Or());
            over = new Expression.List(items, IsTuple: true);
        }
        var where = Take("if") ? Expression() : null;
        var recursive = Take("recursive");
        Need(TokenKind.CloseTag);
        var body = Body("else", "endfor");
        List<Statement> otherwise = [];
        if (Take("else"))
        {
            Need(TokenKind.CloseTag);
            otherwise = Body("endfor");
        }
        Need("endfor");
        Need(TokenKind.CloseTag);
        return new(target, over, where, body, otherwise, recursive);
    }

    /// <summary>What is assigned to: a name, a namespace's attribute, or several of them with commas between.</summary>
    private Expression Target()
    {
        var first = SingleTarget();
        if (Now is not { Kind: TokenKind.Symbol, Value: "," }) return first;
        var items = new List<Expression> { first };
        while (Take(",") && Now.Kind is TokenKind.Name && !IsName("in") || Now is { Kind: TokenKind.Symbol, Value: "(" }) items.Add(SingleTarget());
        return new Expression.List(items, IsTuple: true);
    }

    private Expression SingleTarget()
    {
        if (++depth > Deepest) throw new JinjaException($"line {Now.Line}: nested too deeply");
        Expression target;
        if (Take("("))
        {
            target = Target();
            Need(")");
        }
        else
        {
            target = new Expression.Name(Need(TokenKind.Name).Value);
            if (Take(".")) target = new Expression.Attribute(target, Need(TokenKind.Name).Value);
        }
        depth--;
        return target;
    }

    private Statement.With With()
    {
        var sets = new List<(Expression, Expression)>();
        while (Now.Kind != TokenKind.CloseTag)
        {
            if (sets.Count > 0) Need(",");
            var target = SingleTarget();
            Need("=");
            sets.Add((target, Expression()));
        }
        Need(TokenKind.CloseTag);
        return new(sets, BodyTo("endwith"));
    }

    private Statement Set()
    {
        var target = Target();
        if (Take("="))
        {
            var value = Tuple();
            Need(TokenKind.CloseTag);
            return new Statement.Set(target, value);
        }
        var filters = new List<Expression.Filter>();
        while (Take("|")) filters.Add(FilterName(null));
        Need(TokenKind.CloseTag);
        return new Statement.SetBlock(target, filters, BodyTo("endset"));
    }

    private List<(string, Expression?)> Parameters()
    {
        Need("(");
        var parameters = new List<(string, Expression?)>();
        while (!Take(")"))
        {
            if (parameters.Count > 0) Need(",");
            parameters.Add((Need(TokenKind.Name).Value, Take("=") ? Expression() : null));
        }
        return parameters;
    }

    /// <summary>An expression, or several with commas between them, which make a tuple.</summary>
    private Expression Tuple()
    {
        var first = Expression();
        if (Now is not { Kind: TokenKind.Symbol, Value: "," }) return first;
        var items = new List<Expression> { first };
        while (Take(","))
        {
            if (Now.Kind is TokenKind.CloseTag or TokenKind.CloseOutput) break;
            items.Add(Expression());
        }
        return new Expression.List(items, IsTuple: true);
    }

    private Expression Expression()
    {
        if (++depth > Deepest) throw new JinjaException($"line {Now.Line}: nested too deeply");
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
        while (Take("or")) left = new Expression.Binary("or", left, And());
        return left;
    }

    private Expression And()
    {
        var left = Not();
        while (Take("and")) left = new Expression.Binary("and", left, Not());
        return left;
    }

    private Expression Not()
    {
        if (!Take("not")) return Comparison();
        if (++depth > Deepest) throw new JinjaException($"line {Now.Line}: nested too deeply");
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
            if (Now.Kind == TokenKind.Symbol && symbol is "==" or "!=" or "<" or ">" or "<=" or ">=" && Now.Kind == TokenKind.Symbol)
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
            else return rest.Count == 0 ? first : new Expression.Compare(first, rest);
        }
    }

    private Expression Sum()
    {
        var left = Join();
        while (Now.Kind == TokenKind.Symbol && Now.Value is "+" or "-") left = new Expression.Binary(tokens[at++].Value, left, Join());
        return left;
    }

    private Expression Join()
    {
        var left = Product();
        while (Take("~")) left = new Expression.Binary("~", left, Product());
        return left;
    }

    private Expression Product()
    {
        var left = Power();
        while (Now.Kind == TokenKind.Symbol && Now.Value is "*" or "/" or "//" or "%") left = new Expression.Binary(tokens[at++].Value, left, Power());
        return left;
    }

    /// <summary>Binds weaker than a sign and from the left, in Jinja as not in Python: -2 ** 2 is 4.</summary>
    private Expression Power()
    {
        var left = Unary();
        while (Take("**")) left = new Expression.Binary("**", left, Unary());
        return left;
    }

    private Expression Unary(bool filters = true)
    {
        if (++depth > Deepest) throw new JinjaException($"line {Now.Line}: nested too deeply");
        Expression value;
        if (Now.Kind == TokenKind.Symbol && Now.Value is "-" or "+") value = new Expression.Unary(tokens[at++].Value, Unary(filters: false));
        else value = Postfix(Primary());
        if (filters) value = FiltersAndTests(value);
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
                var text = token.Value;
                while (Now.Kind == TokenKind.String) text += tokens[at++].Value;
                return new Expression.Literal(text);
            case TokenKind.Integer:
                at++;
                return new Expression.Literal(Integer(token.Value) ?? throw new JinjaException($"line {token.Line}: {token.Value} is too large"));
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
        if (Take("(")) return Items(")", tuple: true);
        if (Take("[")) return Items("]", tuple: false);
        if (!Take("{")) throw Unexpected("a value");
        var entries = new List<(Expression, Expression)>();
        while (!Take("}"))
        {
            if (entries.Count > 0)
            {
                Need(",");
                if (Take("}")) break;
            }
            var key = Expression();
            Need(":");
            entries.Add((key, Expression()));
        }
        return new Expression.Dict(entries);
    }

    private static long? Integer(string digits)
    {
        var (style, skip) = digits.Length < 2 ? (NumberStyles.None, 0) : char.ToLowerInvariant(digits[1]) switch
        {
            'x' => (NumberStyles.AllowHexSpecifier, 2),
            'b' => (NumberStyles.AllowBinarySpecifier, 2),
            _ => (NumberStyles.None, 0),
        };
        return long.TryParse(digits.AsSpan(skip), style, CultureInfo.InvariantCulture, out var whole) && whole >= 0 ? whole : null;
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
                if (Take(close)) break;
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
                value = Now.Kind == TokenKind.Integer
                    ? new Expression.Index(value, new Expression.Literal(long.Parse(tokens[at++].Value)))
                    : new Expression.Attribute(value, Need(TokenKind.Name).Value);
            }
            else if (Take("[")) value = Subscript(value);
            else if (Now is { Kind: TokenKind.Symbol, Value: "(" }) value = new Expression.Call(value, CallArguments());
            else return value;
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
                if (++part > 2) throw Unexpected("']'");
            }
            else if (parts[part] is null) parts[part] = Expression();
            else throw Unexpected("']'");
        }
        if (part > 0) return new Expression.Slice(of, parts[0], parts[1], parts[2]);
        return new Expression.Index(of, parts[0] ?? throw Unexpected("an index"));
    }

    private Arguments CallArguments()
    {
        Need("(");
        var (positional, named) = (new List<Expression>(), new List<(string, Expression)>());
        Expression? rest = null, namedRest = null;
        var first = true;
        while (!Take(")"))
        {
            if (!first)
            {
                Need(",");
                if (Take(")")) break;
            }
            first = false;
            if (rest is null && Take("*")) rest = Expression();
            else if (namedRest is null && Take("**")) namedRest = Expression();
            else if (Now.Kind == TokenKind.Name && tokens[at + 1] is { Kind: TokenKind.Symbol, Value: "=" })
            {
                var name = tokens[at].Value;
                at += 2;
                named.Add((name, Expression()));
            }
            else positional.Add(Expression());
        }
        return new(positional, named, rest, namedRest);
    }

    private Expression FiltersAndTests(Expression value)
    {
        while (true)
        {
            if (Take("|")) value = FilterName(value);
            else if (Take("is")) value = TestName(value);
            else if (value is Jinja.Expression.Filter or Jinja.Expression.Test && Now is { Kind: TokenKind.Symbol, Value: "(" }) value = new Expression.Call(value, CallArguments());
            else return value;
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
        if (Now is { Kind: TokenKind.Symbol, Value: "(" }) arguments = CallArguments();
        else if (Now.Kind is TokenKind.String or TokenKind.Integer or TokenKind.Float || Now is { Kind: TokenKind.Symbol, Value: "[" or "{" }
            || Now.Kind == TokenKind.Name && Now.Value is not ("else" or "or" or "and" or "is" or "if" or "in" or "not"))
            arguments = new([Postfix(Primary())], []);
        return new(of, name, arguments, negated);
    }
}
