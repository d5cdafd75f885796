using System.Globalization;

namespace Memopt.Tracking;

/// <summary>Reads comparisons of filters and makes the tests that they stand for.</summary>
/// <param name="scanner">Where the text is read.</param>
/// <param name="operands">Reads the left sides.</param>
/// <param name="stop">Ends a long list.</param>
internal sealed class ComparisonParser(FilterScanner scanner, OperandParser operands, CancellationToken stop)
{
    /// <summary>Characters of a pattern of like.</summary>
    private const int MostOfPattern = 1_000;

    /// <summary>What did not end by itself, for which MLflow has one word.</summary>
    private static readonly RunStatus[] killed = [RunStatus.Stopped, RunStatus.Interrupted];

    public Func<FilterTarget, bool> Parse()
    {
        var operand = operands.Parse();
        if (scanner.Word("is"))
            return Is(operand);
        var negated = scanner.Word("not");
        if (scanner.Word("in"))
            return In(operand, negated);
        if (scanner.Word("like"))
            return Like(operand, negated, insensitive: false);
        if (scanner.Word("ilike"))
            return Like(operand, negated, insensitive: true);
        if (negated)
            throw scanner.Wrong("expected \"in\", \"like\" or \"ilike\" after \"not\"");
        scanner.Blank();
        var where = scanner.Position;
        var sign =
            scanner.Sign() ?? throw scanner.Wrong("expected a comparison: = != < <= > >= like ilike in, is null");
        return sign is "=" or "!=" ? Equality(operand, sign) : Order(operand, sign, where);
    }

    private Func<FilterTarget, bool> Is(Operand operand)
    {
        var read = operand.Read;
        var not = scanner.Word("not");
        if (scanner.Word("null"))
            return subject => read(subject) is null or string[] { Length: 0 } ? !not : not;
        if (scanner.Word("nan"))
            return operand.Kind == OperandKind.Number
                ? subject => read(subject) is double value && double.IsNaN(value) != not
                : throw scanner.Wrong("only a number can be NaN");
        throw scanner.Wrong("expected \"null\" or \"nan\"");
    }

    private Func<FilterTarget, bool> In(Operand operand, bool negated)
    {
        if (!scanner.Symbol("("))
            throw scanner.Wrong("expected \"(\" and a list");
        var tests = new List<Predicate<object>>();
        do
        {
            stop.ThrowIfCancellationRequested();
            tests.Add(Equal(operand.Kind));
        } while (scanner.Symbol(","));
        if (!scanner.Symbol(")"))
            throw scanner.Wrong("expected \",\" or \")\"");
        return Any(operand.Read, value => tests.Exists(test => test(value)) != negated);
    }

    private Func<FilterTarget, bool> Like(Operand operand, bool negated, bool insensitive)
    {
        scanner.Blank();
        if (operand.Kind is OperandKind.Number or OperandKind.Time)
            throw scanner.Wrong("a number has no pattern");
        var pattern = Pattern(insensitive || operand.Kind == OperandKind.Status);
        if (operand.Kind != OperandKind.Status)
            return Any(operand.Read, value => value is string candidate && pattern.Matches(candidate) != negated);
        var meant = Enum.GetValues<RunStatus>()
            .Where(status =>
                pattern.Matches(Attributes.Spelled(status)) || (killed.Contains(status) && pattern.Matches("killed"))
            )
            .Select(Attributes.Spelled)
            .ToList();
        return Any(operand.Read, value => meant.Contains((string)value) != negated);
    }

    private LikePattern Pattern(bool insensitive)
    {
        var pattern = scanner.Text() ?? throw scanner.Wrong("expected a pattern in quotes");
        return pattern.Length <= MostOfPattern
            ? new(pattern, insensitive)
            : throw scanner.Wrong($"a pattern has {MostOfPattern:N0} characters at most (found {pattern.Length:N0})");
    }

    private Func<FilterTarget, bool> Equality(Operand operand, string sign)
    {
        var equal = Equal(operand.Kind);
        return Any(operand.Read, value => equal(value) == (sign == "="));
    }

    private Func<FilterTarget, bool> Order(Operand operand, string sign, int where)
    {
        if (operand.Kind is OperandKind.Text or OperandKind.Status)
            throw scanner.Wrong($"text has no order: \"{sign}\" needs a number", where);
        scanner.Blank();
        where = scanner.Position;
        var limit =
            operand.Kind == OperandKind.Time
                ? scanner.Time()
                : scanner.Number() ?? throw scanner.Wrong($"expected a number after \"{sign}\"", where);
        return Any(
            operand.Read,
            value =>
                Number(value) is { } number
                && sign switch
                {
                    "<" => number < limit,
                    "<=" => number <= limit,
                    ">" => number > limit,
                    _ => number >= limit,
                }
        );
    }

    /// <summary>Whether a run has such a value; of what has several values, one is enough.</summary>
    private static Func<FilterTarget, bool> Any(Read read, Predicate<object> test) =>
        subject =>
            read(subject) switch
            {
                null => false,
                string[] several => Array.Exists(several, one => test(one)),
                var value => test(value),
            };

    /// <summary>Reads a literal and makes the test that a value equals it.</summary>
    private Predicate<object> Equal(OperandKind kind)
    {
        scanner.Blank();
        var where = scanner.Position;
        switch (kind)
        {
            case OperandKind.Number:
                var number = scanner.Number() ?? throw scanner.Wrong("expected a number", where);
                return value => value is double known && known == number;
            case OperandKind.Time:
                var time = scanner.Time();
                return value => value is double known && known == time;
            case OperandKind.Status:
                var status = scanner.Text() ?? throw scanner.Wrong("expected a status in quotes", where);
                var meant = Statuses(status, where);
                return value => meant.Contains((string)value);
            case OperandKind.Loose when scanner.Number() is { } loose:
                return value => Number(value) == loose;
            default:
                var exact =
                    scanner.Text()
                    ?? throw scanner.Wrong(
                        kind == OperandKind.Loose ? "expected a number, or text in quotes" : "expected text in quotes",
                        where
                    );
                return value => (string)value == exact;
        }
    }

    private string[] Statuses(string text, int where)
    {
        if (text.Equals("killed", StringComparison.OrdinalIgnoreCase))
            return [.. killed.Select(Attributes.Spelled)];
        if (text.Equals("scheduled", StringComparison.OrdinalIgnoreCase))
            return [];
        return
            Enum.TryParse<RunStatus>(text, ignoreCase: true, out var status)
            && Enum.IsDefined(status)
            && !char.IsDigit(text[0])
            ? [Attributes.Spelled(status)]
            : throw scanner.Wrong(
                $"no run is \"{text}\"; it can be "
                    + $"{string.Join(", ", Enum.GetValues<RunStatus>().Select(Attributes.Spelled))}, or killed "
                    + "for both of stopped and interrupted",
                where
            );
    }

    private static double? Number(object? value) =>
        value switch
        {
            double number => number,
            string text when double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) =>
                number,
            _ => null,
        };
}
