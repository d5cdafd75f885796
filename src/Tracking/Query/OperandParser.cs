namespace Memopt.Tracking;

/// <summary>Reads operands of filters: what is compared, sorted by or shown.</summary>
/// <param name="scanner">Where the text is read.</param>
internal sealed class OperandParser(FilterScanner scanner)
{
    private static readonly string[] aggregates = ["min", "max", "mean", "count", "last"];

    private readonly HashSet<RecordedName> names = [];

    /// <summary>Names read so far of what not every run has.</summary>
    public IReadOnlyCollection<RecordedName> Names => names;

    public Operand Parse()
    {
        scanner.Blank();
        var start = scanner.Position;
        var quoted = scanner.Quoted();
        if (quoted is not null && !scanner.Peek('.'))
            return Attribute(quoted, start);
        var word = quoted ?? scanner.Letters();
        if (word.Length == 0)
            throw scanner.Wrong(
                scanner.AtEnd ? "expected a name, but the text ends" : "expected a name such as metrics.loss",
                start
            );
        if (aggregates.Contains(word.ToLowerInvariant()) && scanner.Symbol("("))
            return Aggregate(word);
        return scanner.Adjacent('.') ? Member(word, start) : Attribute(word, start);
    }

    /// <summary>Reads what follows the bracket after min, max, mean, count or last.</summary>
    private Operand Aggregate(string word)
    {
        scanner.Blank();
        var start = scanner.Position;
        var inner = scanner.Letters();
        if (inner.ToLowerInvariant() is not ("metric" or "metrics") || !scanner.Adjacent('.'))
            throw scanner.Wrong($"{word}(…) is of a metric: {word}(metrics.loss)", start);
        var metric = Key("metrics");
        if (!scanner.Symbol(")"))
            throw scanner.Wrong("expected \")\"");
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

    /// <summary>Reads what follows the dot after metrics, params, tags, hashes, datasets or attributes.</summary>
    private Operand Member(string word, int start)
    {
        switch (word.ToLowerInvariant())
        {
            case "metric" or "metrics":
                return Metric();
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
                start = scanner.Position;
                return Attribute(Key(), start);
            default:
                throw scanner.Wrong(
                    $"there is nothing called {word}; names begin with metrics, params, tags, hashes, datasets or "
                        + "attributes",
                    start
                );
        }
    }

    private Operand Metric()
    {
        var metric = Key("metrics");
        if (!scanner.Adjacent('@'))
            return new(
                OperandKind.Number,
                subject => subject.Run.Metrics.TryGetValue(metric, out var m) ? m.Last : null
            );
        var digits = scanner.Position;
        var step = long.TryParse(scanner.Digits(), out var parsed)
            ? parsed
            : throw scanner.Wrong("expected a step after \"@\"", digits);
        return new(
            OperandKind.Number,
            subject => subject.Run.Metrics.ContainsKey(metric) ? subject.At(metric, step) : null
        );
    }

    private Operand Dataset()
    {
        var start = scanner.Position;
        return Key().ToLowerInvariant() switch
        {
            "name" => Of(data => data.Name),
            "digest" => Of(data => data.Digest),
            "context" => Of(data => data.Context),
            _ => throw scanner.Wrong("a dataset has name, digest and context", start),
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
        ?? throw scanner.Wrong(
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
        var start = scanner.Position;
        if (scanner.Quoted() is { } quoted)
            return quoted;
        var name = scanner.KeyLetters();
        return name.Length > 0 ? name : throw scanner.Wrong("expected a name after \".\"", start);
    }
}
