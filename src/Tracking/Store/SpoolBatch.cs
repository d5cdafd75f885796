using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>Lines of a run on their way into its record and chunks.</summary>
internal sealed class SpoolBatch(PointChunks chunks, RunRecord record)
{
    /// <summary>Names of metrics that a run can have: keys have no room for more.</summary>
    private const int MostMetrics = 1 << 15;

    private readonly List<Column> columns = [];
    private readonly Dictionary<string, Column> byName = [];

    /// <summary>Whether more than the head has changed.</summary>
    public bool ChangedDetails { get; private set; }

    /// <summary>The points of a metric that are not in chunks yet.</summary>
    private sealed record Column(string Name, List<Point> Points);

    /// <summary>Adds whole lines; those that are torn, or of an unknown shape, are passed over.</summary>
    public void Add(ReadOnlySpan<byte> lines)
    {
        foreach (var range in lines.Split((byte)'\n'))
        {
            try
            {
                AddLine(lines[range]);
            }
            catch (JsonException)
            {
                // Whole, but of a shape that this version does not know: it stays in the spool for one that does.
            }
        }
        Flush();
    }

    private void AddLine(ReadOnlySpan<byte> line)
    {
        if (!SpoolLine.TryRead(line, out var kind, out var fromStep, out var body))
            return; // torn by a kill
        if (kind.SequenceEqual("log"u8))
            AddValues(body);
        else if (kind.SequenceEqual("step"u8)) // as version 0 of the layout wrote them
            AddRow(JsonSerializer.Deserialize<StepRow>(body, LiteRunStore.Json)!);
        else if (kind.SequenceEqual("eval"u8))
            AddRow(JsonSerializer.Deserialize<EvalRow>(body, LiteRunStore.Json)!);
        else
            AddDetail(Encoding.UTF8.GetString(kind), fromStep, Encoding.UTF8.GetString(body));
    }

    private void AddDetail(string kind, int fromStep, string json)
    {
        ChangedDetails = true;
        switch (kind)
        {
            case "begin":
                Begin(json, fromStep);
                break;
            case "event":
                record.Events.Add(json);
                break;
            case "artifact":
                record.Artifacts.Add(json);
                break;
            case "param" or "tag":
                var named = JsonSerializer.Deserialize<SpoolWriter.Named>(json, LiteRunStore.Json)!;
                record.Set(kind == "tag", named.Name, named.Value);
                break;
            case "end":
                record.End(json);
                break;
        }
    }

    private void Begin(string json, int fromStep)
    {
        Flush();
        record.Begin(json);
        if (fromStep < int.MaxValue)
            chunks.Cut(record, fromStep);
        columns.Clear();
        byName.Clear();
    }

    private void AddValues(ReadOnlySpan<byte> body)
    {
        var reader = new Utf8JsonReader(body);
        var (time, step, expected) = (0L, 0L, 0);
        while (reader.Read())
        {
            if (reader.TokenType != JsonTokenType.PropertyName)
                continue;
            if (reader.CurrentDepth == 1)
            {
                var which = reader.ValueSpan[0];
                reader.Read();
                if (which == 't')
                    time = reader.GetInt64();
                else if (which == 's')
                    step = reader.GetInt64();
                continue;
            }
            // One line's names are mostly those of the line before, in its order.
            var column =
                expected < columns.Count && reader.ValueTextEquals(columns[expected].Name)
                    ? columns[expected]
                    : Named(reader.GetString()!);
            expected++;
            reader.Read();
            column.Points.Add(new(step, Value(ref reader), time));
        }
    }

    /// <summary>A value; what JSON has no number for is a string.</summary>
    private static double Value(ref Utf8JsonReader reader) =>
        reader.TokenType == JsonTokenType.Number
            ? reader.GetDouble()
            : double.Parse(reader.GetString()!, CultureInfo.InvariantCulture);

    private void AddRow(StepRow row)
    {
        foreach (var (name, value) in row.Metrics())
            Named(name).Points.Add(new(row.Step, value, record.Started));
    }

    private void AddRow(EvalRow row)
    {
        foreach (var (name, value) in row.Values)
            Named(Run.EvalPrefix + name).Points.Add(new(row.Step, value, record.Started));
    }

    private Column Named(string name)
    {
        if (!byName.TryGetValue(name, out var column))
            columns.Add(byName[name] = column = new(name, []));
        return column;
    }

    private void Flush()
    {
        foreach (var column in columns.Where(column => column.Points.Count > 0))
        {
            if (!record.Metrics.TryGetValue(column.Name, out var metric) && record.Metrics.Count >= MostMetrics)
                continue;
            if (metric is null)
                record.Metrics.Add(column.Name, metric = new(NextNumber()));
            foreach (var point in column.Points)
                metric.Add(point);
            chunks.Append(record, metric, column.Points);
            column.Points.Clear();
        }
    }

    private int NextNumber() => record.Metrics.Count == 0 ? 0 : record.Metrics.Values.Max(other => other.Number) + 1;
}
