namespace Memopt.Tracking;

/// <summary>
/// Reads filters. The language is MLflow's and more:
/// <code>
/// query      = [ or ] [ "order" "by" key { "," key } ]          key = operand [ "asc" | "desc" ]
/// or         = and { "or" and }
/// and        = not { "and" not }
/// not        = "not" not | "(" or ")" | comparison
/// comparison = operand ( "=" | "==" | "!=" | "&lt;&gt;" | "&lt;" | "&lt;=" | "&gt;" | "&gt;=" ) literal
///            | operand [ "not" ] ( "like" | "ilike" ) text
///            | operand [ "not" ] "in" "(" literal { "," literal } ")"
///            | operand "is" [ "not" ] ( "null" | "nan" )
/// operand    = "metrics." name [ "@" step ]
///            | ( "min" | "max" | "mean" | "count" | "last" ) "(" "metrics." name ")"
///            | "params." name | "tags." name | "hashes." name
///            | "datasets." ( "name" | "digest" | "context" )
///            | [ "attributes." ] name
/// name       = letters, digits and _ . / : - as they are; anything between ` or "
/// literal    = number | 'text' | "text"
/// </code>
/// A comparison with what a run does not have is false; "not" turns whatever follows it around. A text is read once,
/// from left to right: the time grows with its length. Whoever asks may be a stranger, so length and depth have limits.
/// </summary>
internal sealed class FilterParser
{
    /// <summary>Characters of a filter, and how deep brackets and "not" may stand in each other.</summary>
    public const int MostCharacters = 250_000,
        MostDepth = 100;

    private readonly FilterScanner scanner;
    private readonly OperandParser operands;
    private readonly ComparisonParser comparisons;
    private readonly CancellationToken stop;
    private int depth;

    private FilterParser(string text, CancellationToken stop = default)
    {
        if (text.Length > MostCharacters)
            throw new QueryException(
                text,
                MostCharacters,
                $"a filter has {MostCharacters:N0} characters at most (found {text.Length:N0})."
            );
        this.stop = stop;
        scanner = new(text);
        operands = new(scanner);
        comparisons = new(scanner, operands, stop);
    }

    /// <summary>Reads a filter and an order. Throws <see cref="QueryException"/> when it cannot, and when
    /// <paramref name="stop"/> is cancelled.</summary>
    public static Filter Parse(string? text, CancellationToken stop = default) =>
        new FilterParser(text ?? "", stop).Query();

    /// <summary>Reads one operand: a column.</summary>
    public static Operand Column(string text)
    {
        var parser = new FilterParser(text);
        var operand = parser.operands.Parse();
        parser.scanner.End("a column is one name");
        return operand;
    }

    /// <summary>Reads keys of an order.</summary>
    public static Filter Keys(string text)
    {
        var parser = new FilterParser(text);
        var keys = parser.Keys();
        parser.scanner.End("a key of an order is a name with asc or desc");
        return new(_ => true, keys) { Names = parser.operands.Names };
    }

    private Filter Query()
    {
        Func<FilterTarget, bool> matches = _ => true;
        var keys = new List<Filter.Key>();
        scanner.Blank();
        if (!scanner.AtEnd && !scanner.PeekWord("order"))
            matches = Or();
        if (scanner.Word("order"))
        {
            if (!scanner.Word("by"))
                throw scanner.Wrong("expected \"by\" after \"order\"");
            keys.AddRange(Keys());
        }
        scanner.End("expected \"and\", \"or\" or \"order by\"");
        return new(matches, keys) { Names = operands.Names };
    }

    private List<Filter.Key> Keys()
    {
        var keys = new List<Filter.Key>();
        do
        {
            var operand = operands.Parse();
            keys.Add(new(operand, !scanner.Word("asc") && scanner.Word("desc")));
        } while (scanner.Symbol(","));
        return keys;
    }

    private Func<FilterTarget, bool> Or()
    {
        var any = new List<Func<FilterTarget, bool>> { And() };
        while (scanner.Word("or"))
            any.Add(And());
        return any.Count == 1 ? any[0] : subject => any.Exists(matches => matches(subject));
    }

    private Func<FilterTarget, bool> And()
    {
        var all = new List<Func<FilterTarget, bool>> { Not() };
        while (scanner.Word("and"))
            all.Add(Not());
        return all.Count == 1 ? all[0] : subject => all.TrueForAll(matches => matches(subject));
    }

    private Func<FilterTarget, bool> Not()
    {
        stop.ThrowIfCancellationRequested();
        if (scanner.Word("not"))
        {
            var inner = Inside(Not);
            return subject => !inner(subject);
        }
        if (scanner.Symbol("("))
        {
            var inner = Inside(Or);
            return scanner.Symbol(")") ? inner : throw scanner.Wrong("expected \")\"");
        }
        return comparisons.Parse();
    }

    private Func<FilterTarget, bool> Inside(Func<Func<FilterTarget, bool>> read)
    {
        if (++depth > MostDepth)
            throw scanner.Wrong($"this is nested more than {MostDepth} deep");
        var inner = read();
        depth--;
        return inner;
    }
}
