namespace Memopt.Text.Jinja;

/// <summary>Tokens to a tree, by recursive descent; this part reads tags.</summary>
internal sealed partial class Parser(List<Token> tokens)
{
    private const int Deepest = 200,
        Longest = 1 << 20;

    private int at;
    private int depth;

    public static IReadOnlyList<Statement> Read(string template)
    {
        if (template.Length > Longest)
            throw new JinjaException($"a template of more than {Longest >> 20} Mi characters");
        var parser = new Parser(Lexer.Read(template));
        var body = parser.Body();
        if (parser.Now.Kind != TokenKind.End)
            throw parser.Unexpected("the end of the template");
        return body;
    }

    private Token Now => tokens[at];

    private JinjaException Unexpected(string wanted) =>
        new(
            $"line {Now.Line}: expected {wanted}, found "
                + $"{(Now.Value.Length > 0 ? $"'{Now.Value}'" : Now.Kind.ToString())}"
        );

    private bool IsName(string name) => Now.Kind == TokenKind.Name && Now.Value == name;

    private bool Take(string value)
    {
        if (Now.Kind is not (TokenKind.Symbol or TokenKind.Name) || Now.Value != value)
            return false;
        at++;
        return true;
    }

    private void Need(string value)
    {
        if (!Take(value))
            throw Unexpected($"'{value}'");
    }

    private Token Need(TokenKind kind)
    {
        if (Now.Kind != kind)
            throw Unexpected(kind.ToString());
        return tokens[at++];
    }

    /// <summary>Statements up to one of the named tags, whose name is taken, or to the end of the template.</summary>
    private List<Statement> Body(params string[] until)
    {
        if (++depth > Deepest)
            throw new JinjaException($"line {Now.Line}: nested too deeply");
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
                if (until.Contains(Now.Value))
                    break;
                body.Add(Tag());
            }
        }
        if (until.Length > 0 && Now.Kind == TokenKind.End)
            throw Unexpected(string.Join(" or ", until));
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
            case "if":
                return If();
            case "for":
                return For();
            case "set":
                return Set();
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
                while (Take("|"))
                    filters.Add(FilterName(null));
                Need(TokenKind.CloseTag);
                return new Statement.FilterBlock(filters, BodyTo("endfilter"));
            case "with":
                return With();
            case "generation":
                Need(TokenKind.CloseTag);
                return new Statement.GenerationBlock(BodyTo("endgeneration"));
            case "break" or "continue":
                Need(TokenKind.CloseTag);
                return new Statement.Jump(name == "continue");
            default:
                throw new JinjaException($"line {Now.Line}: the tag '{name}' is not supported");
        }
    }

    /// <summary>A macro that speaks of varargs or kwargs takes arguments it has not named.</summary>
    private Statement.Macro Macro(string name, List<(string, Expression?)> parameters, string end)
    {
        var begin = at;
        var body = BodyTo(end);
        bool Says(string word) =>
            tokens.FindIndex(begin, at - begin, token => token.Kind == TokenKind.Name && token.Value == word) >= 0;
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
            if (Take("endif"))
                break;
            test = Take("elif") ? Tuple() : null;
            if (test is null)
                Need("else");
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
            while (Take(","))
                items.Add(Or());
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
        if (Now is not { Kind: TokenKind.Symbol, Value: "," })
            return first;
        var items = new List<Expression> { first };
        while (
            Take(",") && Now.Kind is TokenKind.Name && !IsName("in") || Now is { Kind: TokenKind.Symbol, Value: "(" }
        )
            items.Add(SingleTarget());
        return new Expression.List(items, IsTuple: true);
    }

    private Expression SingleTarget()
    {
        if (++depth > Deepest)
            throw new JinjaException($"line {Now.Line}: nested too deeply");
        Expression target;
        if (Take("("))
        {
            target = Target();
            Need(")");
        }
        else
        {
            target = new Expression.Name(Need(TokenKind.Name).Value);
            if (Take("."))
                target = new Expression.Attribute(target, Need(TokenKind.Name).Value);
        }
        depth--;
        return target;
    }

    private Statement.With With()
    {
        var sets = new List<(Expression, Expression)>();
        while (Now.Kind != TokenKind.CloseTag)
        {
            if (sets.Count > 0)
                Need(",");
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
        while (Take("|"))
            filters.Add(FilterName(null));
        Need(TokenKind.CloseTag);
        return new Statement.SetBlock(target, filters, BodyTo("endset"));
    }

    private List<(string, Expression?)> Parameters()
    {
        Need("(");
        var parameters = new List<(string, Expression?)>();
        while (!Take(")"))
        {
            if (parameters.Count > 0)
                Need(",");
            parameters.Add((Need(TokenKind.Name).Value, Take("=") ? Expression() : null));
        }
        return parameters;
    }
}
