using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Memopt.Tracking;

/// <summary>
/// Reads filters. The language is MLflow's and more:
/// <code>
/// query      = [ or ] [ "order" "by" key { "," key } ]          key = operand [ "asc" | "desc" ]
/// or         = and { "or" and }
/// and        = not { "and" not }
/// not        = "not" not | "(" or ")" | comparison
/// comparison = operand ( "=" | "==" | "!=" | "&lt;&gt;" | "&lt;" | "&lt;=" | "&gt;" | "&gt;=" ) literal
///            | operand [ "not" ] ( "like" | "ilike" ) text | operand [ "not" ] "in" "(" literal { "," literal } ")" |
///            operand "is" [ "not" ] ( "null" | "nan" ) operand = "metrics." name [ "@" step ] | ( "min" | "max" |
///            "mean" | "count" | "last" ) "(" "metrics." name ")"
///            | "params." name | "tags." name | "hashes." name | "datasets." ( "name" | "digest" | "context" ) | [
///            "attributes." ] name name = letters, digits and _ . / : - as they are; anything between ` or " literal =
///            number | 'text' | "text"
/// </code>
/// A comparison with what a run does not have is false; "not" turns whatever follows it around. A text is read once,
/// from left to right: the time grows with its length. Whoever asks may be a stranger, so length and depth have limits.
/// </summary>
internal sealed partial class FilterParser
{
    /// <summary>Characters of a filter, of a pattern of like, and how deep brackets and "not" may stand in each
    /// other.</summary>
    public const int MostCharacters = 250_000,
        MostOfPattern = 1_000,
        MostDepth = 100;

    private static readonly string[] aggregates = ["min", "max", "mean", "count", "last"];

    /// <summary>What did not end by itself, for which MLflow has one word.</summary>
    private static readonly RunStatus[] killed = [RunStatus.Stopped, RunStatus.Interrupted];

    private readonly string text;
    private readonly CancellationToken stop;
    private readonly HashSet<RecordedName> names = [];
    private int at,
        depth;

    private FilterParser(string text, CancellationToken stop = default)
    {
        (this.text, this.stop) = (text, stop);
        if (text.Length > MostCharacters)
            throw new QueryException(
                text,
                MostCharacters,
                $"a filter has {MostCharacters:N0} characters at most (found {text.Length:N0})."
            );
    }

    /// <summary>Reads a filter and an order. Throws <see cref="QueryException"/> when it cannot, and when
    /// <paramref name="stop"/> is cancelled.</summary>
    public static Filter Parse(string? text, CancellationToken stop = default) =>
        new FilterParser(text ?? "", stop).Query();

    /// <summary>Reads one operand: a column.</summary>
    public static Operand Column(string text)
    {
        var parser = new FilterParser(text);
        var operand = parser.Operand();
        parser.End("a column is one name");
        return operand;
    }

    /// <summary>Reads keys of an order.</summary>
    public static Filter Keys(string text)
    {
        var parser = new FilterParser(text);
        var keys = parser.Keys();
        parser.End("a key of an order is a name with asc or desc");
        return new(_ => true, keys) { Names = parser.names };
    }

    private List<Filter.Key> Keys()
    {
        var keys = new List<Filter.Key>();
        do
        {
            var operand = Operand();
            keys.Add(new(operand, !Word("asc") && Word("desc")));
        } while (Symbol(","));
        return keys;
    }

    private Filter Query()
    {
        Func<FilterTarget, bool> matches = _ => true;
        var keys = new List<Filter.Key>();
        Blank();
        if (at < text.Length && !PeekWord("order"))
            matches = Or();
        if (Word("order"))
        {
            if (!Word("by"))
                throw Wrong("expected \"by\" after \"order\"");
            keys.AddRange(Keys());
        }
        End("expected \"and\", \"or\" or \"order by\"");
        return new(matches, keys) { Names = names };
    }

    private Func<FilterTarget, bool> Or()
    {
        var any = new List<Func<FilterTarget, bool>> { And() };
        while (Word("or"))
            any.Add(And());
        return any.Count == 1 ? any[0] : subject => any.Exists(matches => matches(subject));
    }

    private Func<FilterTarget, bool> And()
    {
        var all = new List<Func<FilterTarget, bool>> { Not() };
        while (Word("and"))
            all.Add(Not());
        return all.Count == 1 ? all[0] : subject => all.TrueForAll(matches => matches(subject));
    }

    private Func<FilterTarget, bool> Not()
    {
        stop.ThrowIfCancellationRequested();
        if (Word("not"))
        {
            var inner = Inside(Not);
            return subject => !inner(subject);
        }
        if (Symbol("("))
        {
            var inner = Inside(Or);
            return Symbol(")") ? inner : throw Wrong("expected \")\"");
        }
        return Comparison();
    }

    private Func<FilterTarget, bool> Inside(Func<Func<FilterTarget, bool>> read)
    {
        if (++depth > MostDepth)
            throw Wrong($"this is nested more than {MostDepth} deep");
        var inner = read();
        depth--;
        return inner;
    }

    private Func<FilterTarget, bool> Comparison()
    {
        var operand = Operand();
        var read = operand.Read;
        if (Word("is"))
        {
            var not = Word("not");
            if (Word("null"))
                return subject => read(subject) is null or string[] { Length: 0 } ? !not : not;
            if (Word("nan"))
                return operand.Kind == OperandKind.Number
                    ? subject => read(subject) is double value && double.IsNaN(value) != not
                    : throw Wrong("only a number can be NaN");
            throw Wrong("expected \"null\" or \"nan\"");
        }
        var negated = Word("not");
        if (Word("in"))
        {
            if (!Symbol("("))
                throw Wrong("expected \"(\" and a list");
            var tests = new List<Predicate<object>>();
            do
            {
                stop.ThrowIfCancellationRequested();
                tests.Add(Equal(operand.Kind));
            } while (Symbol(","));
            if (!Symbol(")"))
                throw Wrong("expected \",\" or \")\"");
            return Any(read, value => tests.Exists(test => test(value)) != negated);
        }
        var insensitive = false;
        if (Word("like") || (insensitive = Word("ilike")))
        {
            Blank();
            if (operand.Kind is OperandKind.Number or OperandKind.Time)
                throw Wrong("a number has no pattern");
            var pattern = Pattern(
                Text() ?? throw Wrong("expected a pattern in quotes"),
                insensitive || operand.Kind == OperandKind.Status
            );
            if (operand.Kind == OperandKind.Status)
            {
                var meant = Enum.GetValues<RunStatus>()
                    .Where(status =>
                        pattern(Attributes.Spelled(status)) || (killed.Contains(status) && pattern("killed"))
                    )
                    .Select(Attributes.Spelled)
                    .ToList();
                return Any(read, value => meant.Contains((string)value) != negated);
            }
            return Any(read, value => value is string candidate && pattern(candidate) != negated);
        }
        if (negated)
            throw Wrong("expected \"in\", \"like\" or \"ilike\" after \"not\"");
        Blank();
        var where = at;
        var sign = Sign() ?? throw Wrong("expected a comparison: = != < <= > >= like ilike in, is null");
        if (sign is "=" or "!=")
        {
            var equal = Equal(operand.Kind);
            return Any(read, value => equal(value) == (sign == "="));
        }
        if (operand.Kind is OperandKind.Text or OperandKind.Status)
            throw Wrong($"text has no order: \"{sign}\" needs a number", where);
        Blank();
        where = at;
        var limit =
            operand.Kind == OperandKind.Time
                ? Time()
                : Number() ?? throw Wrong($"expected a number after \"{sign}\"", where);
        return Any(
            read,
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
        Blank();
        var where = at;
        switch (kind)
        {
            case OperandKind.Number:
                var number = Number() ?? throw Wrong("expected a number", where);
                return value => value is double known && known == number;
            case OperandKind.Time:
                var time = Time();
                return value => value is double known && known == time;
            case OperandKind.Status:
                var status = Text() ?? throw Wrong("expected a status in quotes", where);
                var meant = Statuses(status, where);
                return value => meant.Contains((string)value);
            case OperandKind.Loose when Number() is { } loose:
                return value => Number(value) == loose;
            default:
                var exact =
                    Text()
                    ?? throw Wrong(
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
            : throw Wrong(
                $"no run is \"{text}\"; it can be "
                    + $"{string.Join(", ", Enum.GetValues<RunStatus>().Select(Attributes.Spelled))}, or killed "
                    + "for both "
                    + "of stopped and interrupted",
                where
            );
    }

    private Operand Operand()
    {
        Blank();
        var start = at;
        var quoted = Quoted();
        if (quoted is not null && !(at < text.Length && text[at] == '.'))
            return Attribute(quoted, start);
        var word = quoted ?? Name(Letters());
        if (word.Length == 0)
            throw Wrong(
                at == text.Length ? "expected a name, but the text ends" : "expected a name such as metrics.loss",
                start
            );
        if (aggregates.Contains(word.ToLowerInvariant()) && Symbol("("))
        {
            Blank();
            start = at;
            var inner = Name(Letters());
            if (inner.ToLowerInvariant() is not ("metric" or "metrics") || !Dot())
                throw Wrong($"{word}(…) is of a metric: {word}(metrics.loss)", start);
            var metric = Key("metrics");
            if (!Symbol(")"))
                throw Wrong("expected \")\"");
            return new(
                OperandKind.Number,
                subject =>
                    subject.Run.Metrics.TryGetValue(metric, out var m)
                        ? word.ToLowerInvariant() switch
                        {
                            "min" => m.Min,
                            "max" => m.Max,
                            "mean" => m.Sum / m.Finite,
                            "count" => m.Count,
                            _ => m.Last,
                        }
                        : null
            );
        }
        if (!Dot())
            return Attribute(word, start);
        switch (word.ToLowerInvariant())
        {
            case "metric" or "metrics":
                var metric = Key("metrics");
                if (at >= text.Length || text[at] != '@')
                    return new(
                        OperandKind.Number,
                        subject => subject.Run.Metrics.TryGetValue(metric, out var m) ? m.Last : null
                    );
                at++;
                var digits = at;
                var step = long.TryParse(Name(Digits()), out var parsed)
                    ? parsed
                    : throw Wrong("expected a step after \"@\"", digits);
                return new(
                    OperandKind.Number,
                    subject => subject.Run.Metrics.ContainsKey(metric) ? subject.At(metric, step) : null
                );
            case "param" or "params" or "parameter" or "parameters":
                var param = Key("params");
                return new(OperandKind.Loose, subject => subject.Run.Params.GetValueOrDefault(param));
            case "tag" or "tags":
                var tag = Key("tags");
                return new(OperandKind.Loose, subject => subject.Run.Tags.GetValueOrDefault(tag));
            case "hash" or "hashes":
                var role = Key("hashes");
                return new(OperandKind.Text, subject => subject.Run.Hashes.GetValueOrDefault(role));
            case "dataset" or "datasets":
                return Dataset();
            case "attribute" or "attributes" or "attr" or "run":
                start = at;
                return Attribute(Key(), start);
            default:
                throw Wrong(
                    $"there is nothing called {word}; names begin with metrics, params, tags, hashes, datasets or "
                        + "attributes",
                    start
                );
        }
    }

    private Operand Dataset()
    {
        var start = at;
        return Key().ToLowerInvariant() switch
        {
            "name" => Of(data => data.Name),
            "digest" => Of(data => data.Digest),
            "context" => Of(data => data.Context),
            _ => throw Wrong("a dataset has name, digest and context", start),
        };

        static Operand Of(Func<DatasetInput, string?> read) =>
            new(
                OperandKind.Text,
                subject =>
                    DatasetInput
                        .Of(subject.Run.Params, subject.Run.Hashes, subject.Run.Tags)
                        .Select(read)
                        .OfType<string>()
                        .ToArray()
            );
    }

    private Operand Attribute(string name, int start) =>
        Attributes.Find(name)
        ?? throw Wrong(
            $"there is no attribute {name}; if it is a metric, write metrics.{name}. Attributes: "
                + $"{string.Join(", ", Attributes.Names)}",
            start
        );

    /// <summary>Reads the name of something that a run may have, and remembers that it was asked for.</summary>
    private string Key(string kind)
    {
        var name = Key();
        names.Add(new(kind, name));
        return name;
    }

    private string Key()
    {
        var start = at;
        if (Quoted() is { } quoted)
            return quoted;
        var name = Name(KeyLetters());
        return name.Length > 0 ? name : throw Wrong("expected a name after \".\"", start);
    }

    private static double? Number(object? value) =>
        value switch
        {
            double number => number,
            string text when double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) =>
                number,
            _ => null,
        };

    /// <summary>A time: milliseconds since 1970, as MLflow has it, or a date in quotes, UTC unless it says
    /// otherwise.</summary>
    private double Time()
    {
        Blank();
        var where = at;
        if (Number() is { } milliseconds)
            return milliseconds;
        var date = Text() ?? throw Wrong("expected milliseconds, or a date in quotes", where);
        return DateTimeOffset.TryParse(date, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var time)
            ? time.ToUnixTimeMilliseconds()
            : throw Wrong($"\"{date}\" is no date; write '2026-11-25' or '2026-11-25 13:00'", where);
    }

    /// <summary>The test that a text is like a pattern: % stands for any characters, _ for one.</summary>
    private Predicate<string> Pattern(string like, bool insensitive)
    {
        if (like.Length > MostOfPattern)
            throw Wrong($"a pattern has {MostOfPattern:N0} characters at most (found {like.Length:N0})");
        return text => Like(text, like, insensitive);
    }

    /// <summary>Goes back to the last % alone: at most so many steps as both lengths multiplied.</summary>
    private static bool Like(string text, string like, bool insensitive)
    {
        var (t, p, any, from) = (0, 0, -1, 0);
        while (t < text.Length)
        {
            if (p < like.Length && like[p] == '%')
                (any, from) = (p++, t);
            else if (p < like.Length && (like[p] == '_' || Same(text[t], like[p])))
                (t, p) = (t + 1, p + 1);
            else if (any >= 0)
                (t, p) = (++from, any + 1);
            else
                return false;
        }
        return like.AsSpan(p).TrimStart('%').Length == 0;

        bool Same(char a, char b) => a == b || insensitive && char.ToUpperInvariant(a) == char.ToUpperInvariant(b);
    }

    // What follows reads characters.

    private void Blank()
    {
        while (at < text.Length && char.IsWhiteSpace(text[at]))
            at++;
    }

    private bool PeekWord(string word)
    {
        Blank();
        var end = at + word.Length;
        return end <= text.Length
            && text.AsSpan(at, word.Length).Equals(word, StringComparison.OrdinalIgnoreCase)
            && (end == text.Length || !(char.IsLetterOrDigit(text[end]) || text[end] is '_' or '.'));
    }

    private bool Word(string word)
    {
        if (!PeekWord(word))
            return false;
        at += word.Length;
        return true;
    }

    private bool Symbol(string symbol)
    {
        Blank();
        if (!text.AsSpan(at).StartsWith(symbol, StringComparison.Ordinal))
            return false;
        at += symbol.Length;
        return true;
    }

    private bool Dot()
    {
        if (at >= text.Length || text[at] != '.')
            return false;
        at++;
        return true;
    }

    private string? Sign()
    {
        foreach (
            var (spelled, meant) in new[]
            {
                ("==", "="),
                ("=", "="),
                ("!=", "!="),
                ("<>", "!="),
                ("<=", "<="),
                ("<", "<"),
                (">=", ">="),
                (">", ">"),
            }
        )
        {
            if (Symbol(spelled))
                return meant;
        }
        return null;
    }

    private string Name(Regex of)
    {
        var match = of.Match(text, at);
        at += match.Length;
        return match.Value;
    }

    /// <summary>A name between backticks or double quotes.</summary>
    private string? Quoted() => at < text.Length && text[at] is '`' or '"' ? Between() : null;

    /// <summary>A text between single or double quotes; a quote in it is written twice.</summary>
    private string? Text()
    {
        Blank();
        return at < text.Length && text[at] is '\'' or '"' ? Between() : null;
    }

    private string Between()
    {
        var (start, quote) = (at, text[at++]);
        var value = new StringBuilder();
        for (; at < text.Length; at++)
        {
            if (text[at] != quote)
                value.Append(text[at]);
            else if (at + 1 < text.Length && text[at + 1] == quote)
                value.Append(text[at++]);
            else
            {
                at++;
                return value.ToString();
            }
        }
        throw Wrong($"the {quote} that opens here is not closed", start);
    }

    private double? Number()
    {
        Blank();
        var match = Numeral().Match(text, at);
        if (!match.Success)
            return null;
        at += match.Length;
        if (at < text.Length && (char.IsLetterOrDigit(text[at]) || text[at] is '_' or '.'))
            throw Wrong("a number goes on with what no number has");
        return match.Value.Contains("inf", StringComparison.OrdinalIgnoreCase)
            ? match.Value[0] == '-'
                ? double.NegativeInfinity
                : double.PositiveInfinity
            : double.Parse(match.Value, CultureInfo.InvariantCulture);
    }

    private void End(string otherwise)
    {
        Blank();
        if (at < text.Length)
            throw Wrong(otherwise);
    }

    private QueryException Wrong(string problem, int? where = null)
    {
        if (where is null)
            Blank();
        var position = where ?? at;
        var found = position >= text.Length ? "" : $" (found {Excerpt(position)})";
        return new(text, position, problem + found + ".");
    }

    private string Excerpt(int position)
    {
        return text.Length - position > 20 ? $"\"{text.AsSpan(position, 20)}…\"" : $"\"{text[position..]}\"";
    }

    // Each at the place where it is asked for: none looks further or copies the rest.

    [GeneratedRegex(@"\G\w+")]
    private static partial Regex Letters();

    [GeneratedRegex(@"\G[\w./:-]+")]
    private static partial Regex KeyLetters();

    [GeneratedRegex(@"\G[0-9-]+")]
    private static partial Regex Digits();

    [GeneratedRegex(@"\G[+-]?((\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|inf(inity)?\b)", RegexOptions.IgnoreCase)]
    private static partial Regex Numeral();
}
