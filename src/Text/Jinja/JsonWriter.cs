using System.Globalization;
using System.Text;

namespace Memopt.Text.Jinja;

/// <summary>JSON as Python's <c>json.dumps</c> writes it.</summary>
internal sealed record JsonWriter(
    bool EnsureAscii,
    string? Indent,
    string ItemSeparator,
    string KeySeparator,
    bool SortKeys
)
{
    private readonly StringBuilder output = new();

    public string Write(object? value)
    {
        Write(value, 0);
        return output.ToString();
    }

    private void Write(object? value, int depth)
    {
        Values.CheckDepth(depth);
        RenderCost.Spend(16);
        RenderCost.Fit(output.Length);
        switch (value)
        {
            case string text:
                Text(text);
                break;
            case List<object?> list:
                Nest(list, '[', ']', depth, item => Write(item, depth + 1));
                break;
            case DictValue dict:
                var pairs = SortKeys
                    ? dict.OrderBy(pair => pair.Key, Comparer<object>.Create(Values.Order))
                    : dict.AsEnumerable();
                Nest(
                    [.. pairs],
                    '{',
                    '}',
                    depth,
                    pair =>
                    {
                        Text(pair.Key as string ?? Plain(pair.Key));
                        output.Append(KeySeparator);
                        Write(pair.Value, depth + 1);
                    }
                );
                break;
            default:
                output.Append(Plain(value));
                break;
        }
    }

    private static string Plain(object? value) =>
        value switch
        {
            null => "null",
            bool flag => flag ? "true" : "false",
            long whole => whole.ToString(CultureInfo.InvariantCulture),
            double real => double.IsNaN(real) ? "NaN"
            : double.IsInfinity(real)
                ? real > 0 ? "Infinity"
                    : "-Infinity"
            : Values.Float(real),
            _ => throw new JinjaException($"{Values.TypeName(value)} cannot be written as JSON"),
        };

    private void Nest<T>(IReadOnlyList<T> items, char open, char close, int depth, Action<T> write)
    {
        output.Append(open);
        for (var i = 0; i < items.Count; i++)
        {
            if (i > 0)
                output.Append(ItemSeparator);
            RenderCost.Fit(output.Length);
            Line(depth + 1);
            write(items[i]);
        }
        if (items.Count > 0)
            Line(depth);
        output.Append(close);
    }

    private void Line(int depth)
    {
        if (Indent is null)
            return;
        output.Append('\n');
        RenderCost.Spend(depth * (Indent.Length + 1L));
        RenderCost.Fit(output.Length + (long)depth * Indent.Length);
        for (var i = 0; i < depth; i++)
            output.Append(Indent);
    }

    private void Text(string text)
    {
        RenderCost.Spend(text.Length);
        RenderCost.Fit(output.Length + (long)text.Length);
        output.Append('"');
        foreach (var unit in text)
        {
            _ = unit switch
            {
                '"' => output.Append("\\\""),
                '\\' => output.Append(@"\\"),
                '\n' => output.Append("\\n"),
                '\r' => output.Append("\\r"),
                '\t' => output.Append("\\t"),
                '\b' => output.Append("\\b"),
                '\f' => output.Append("\\f"),
                < ' ' => output.Append($"\\u{(int)unit:x4}"),
                > '~' when EnsureAscii => output.Append($"\\u{(int)unit:x4}"),
                _ => output.Append(unit),
            };
        }
        output.Append('"');
    }
}
