using System.Text;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>What the database keeps of a run beside its points, in two parts: the head, which is all that a query
/// looks at and is small, and the details. Made by taking in the run's spool, line by line.
/// </summary>
internal sealed class RunRecord
{
    private const byte HeadFormat = 1;

    public required string Id { get; init; }

    /// <summary>The database's own number of the run, from which keys of points are made.</summary>
    public required long Number { get; init; }

    /// <summary>How far the spool has been taken in.</summary>
    public int Segment { get; set; }
    public long Offset { get; set; }

    // The head.
    public string Experiment { get; private set; } = "";
    public RunStatus Status { get; set; } = RunStatus.Running;
    public long Started { get; private set; }
    public long? Ended { get; private set; }
    public string? Reason { get; private set; }
    public int TotalSteps { get; private set; }
    public string? Commit { get; private set; }
    public string? Parent { get; private set; }

    // Unpacked when asked for: most filters look at one of them, and there may be many runs.
    public Dictionary<string, string> Params
    {
        get => field ??= Map(0);
        private set;
    }
    public Dictionary<string, string> Tags
    {
        get => field ??= Map(1);
        private set;
    }
    public Dictionary<string, string> Hashes
    {
        get => field ??= Map(2);
        private set;
    }
    public Dictionary<string, Metric> Metrics => field ??= Summaries();

    private byte[]? packed;
    private readonly int[] places = new int[4];

    // The details, as the spool's JSON.
    public string? StartJson { get; set; }
    public string? EndJson { get; set; }
    public List<string> Artifacts { get; init; } = [];
    public List<string> Events { get; init; } = [];

    /// <summary>Parameters and tags given after the start, which a new start does not undo.</summary>
    public Dictionary<string, string?> Later { get; init; } = [];

    /// <summary>A metric's summary and where its points are.</summary>
    public sealed class Metric(int number)
    {
        public int Number { get; } = number;
        public long Count,
            LastStep = long.MinValue,
            LastTime,
            MinStep,
            MaxStep,
            Finite;
        public double Last,
            Min = double.NaN,
            Max = double.NaN,
            Sum;

        /// <summary>Chunks written, and points in the last of them.</summary>
        public int Chunks,
            Tail;

        public void Add(Point point)
        {
            Count++;
            if (
                point.Step > LastStep
                || (
                    point.Step == LastStep
                    && (point.Time > LastTime || (point.Time == LastTime && !(point.Value < Last)))
                )
            )
                (Last, LastStep, LastTime) = (point.Value, point.Step, point.Time);
            if (double.IsNaN(point.Value))
                return;
            if (!(Min <= point.Value))
                (Min, MinStep) = (point.Value, point.Step);
            if (!(Max >= point.Value))
                (Max, MaxStep) = (point.Value, point.Step);
            if (double.IsFinite(point.Value))
                (Sum, Finite) = (Sum + point.Value, Finite + 1);
        }

        public MetricSummary Summary => new(Count, Last, LastStep, LastTime, Min, MinStep, Max, MaxStep, Sum / Finite);
    }

    /// <summary>Takes in the beginning of a run, or of another stretch of it: a run that goes on keeps its first
    /// time.</summary>
    public void Begin(string json)
    {
        var start = JsonSerializer.Deserialize<RunStart>(json, LiteRunStore.Json)!;
        if (StartJson is null)
            Started = start.Started.ToUnixTimeMilliseconds();
        else
            json = JsonSerializer.Serialize(
                start with
                {
                    Started = JsonSerializer.Deserialize<RunStart>(StartJson, LiteRunStore.Json)!.Started,
                },
                LiteRunStore.Json
            );
        (StartJson, EndJson, Ended, Reason, Status) = (json, null, null, null, RunStatus.Running);
        (Experiment, TotalSteps, Commit, Parent) = (
            start.Experiment,
            start.TotalSteps,
            start.GitCommit,
            start.Parent?.Id
        );
        (Params, Tags, Hashes) = (Flat(start.Config), new(start.Tags), new(start.Hashes));
        foreach (var (key, value) in Later)
            Apply(key[0], key[1..], value);
    }

    public void Set(bool tag, string name, string? value)
    {
        Later[(tag ? 't' : 'p') + name] = value;
        Apply(tag ? 't' : 'p', name, value);
    }

    public void End(string json)
    {
        var end = JsonSerializer.Deserialize<Outcome>(json, LiteRunStore.Json)!;
        (EndJson, Status, Ended, Reason) = (json, end.Status, end.Ended.ToUnixTimeMilliseconds(), end.Reason);
    }

    /// <summary>Whether the head is what the details make of it: nothing but this tells of a byte that a disk changed.
    /// Needs the details.</summary>
    public bool Agrees()
    {
        if (StartJson is null)
            return true;
        var again = new RunRecord
        {
            Id = Id,
            Number = Number,
            Later = Later,
        };
        again.Begin(StartJson);
        if (EndJson is not null)
            again.End(EndJson);
        return (
                again.Experiment,
                again.Started,
                again.Ended,
                again.Reason,
                again.TotalSteps,
                again.Commit,
                again.Parent
            ).Equals((Experiment, Started, Ended, Reason, TotalSteps, Commit, Parent))
            && (EndJson is null ? Status is RunStatus.Running or RunStatus.Interrupted : again.Status == Status)
            && Same(again.Params, Params)
            && Same(again.Tags, Tags)
            && Same(again.Hashes, Hashes);

        static bool Same(Dictionary<string, string> a, Dictionary<string, string> b) =>
            a.Count == b.Count && a.All(pair => b.TryGetValue(pair.Key, out var value) && value == pair.Value);
    }

    /// <summary>The run as others see it; needs the details.</summary>
    public Run ToRun()
    {
        var start = JsonSerializer.Deserialize<RunStart>(StartJson!, LiteRunStore.Json)!;
        var end = EndJson is null ? null : JsonSerializer.Deserialize<Outcome>(EndJson, LiteRunStore.Json);
        return new Run(start, Status, end?.Ended, Reason)
        {
            Params = Params,
            Tags = Tags,
            Metrics = Metrics.ToDictionary(metric => metric.Key, metric => metric.Value.Summary),
            Ledger = end is { Ledger.Count: > 0 } ? end.Ledger : start.Ledger,
            Artifacts =
            [
                .. Artifacts
                    .Select(json => JsonSerializer.Deserialize<ArtifactLink>(json, LiteRunStore.Json)!)
                    .GroupBy(link => link.Name)
                    .Select(group => group.Last())
                    .Where(link => link.Hash.Length > 0),
            ],
        };
    }

    public byte[] PackHead()
    {
        using var stream = new MemoryStream(1024);
        using var head = new BinaryWriter(stream, Encoding.UTF8);
        head.Write(HeadFormat);
        head.Write(Experiment);
        head.Write((byte)Status);
        head.Write(Started);
        head.Write(Ended ?? long.MinValue);
        Text(Reason);
        head.Write(TotalSteps);
        Text(Commit);
        Text(Parent);
        foreach (var map in new[] { Params, Tags, Hashes })
        {
            head.Write7BitEncodedInt(map.Count);
            foreach (var (key, value) in map)
            {
                head.Write(key);
                head.Write(value);
            }
        }
        head.Write7BitEncodedInt(Metrics.Count);
        foreach (var (name, m) in Metrics)
        {
            head.Write(name);
            head.Write7BitEncodedInt(m.Number);
            foreach (var integer in new[] { m.Count, m.LastStep, m.LastTime, m.MinStep, m.MaxStep, m.Finite })
                head.Write7BitEncodedInt64(integer);
            foreach (var real in new[] { m.Last, m.Min, m.Max, m.Sum })
                head.Write(real);
            head.Write7BitEncodedInt(m.Chunks);
            head.Write7BitEncodedInt(m.Tail);
        }
        return stream.ToArray();

        void Text(string? text)
        {
            head.Write(text is not null);
            if (text is not null)
                head.Write(text);
        }
    }

    public void UnpackHead(byte[] bytes)
    {
        using var head = At(0, packed = bytes);
        if (head.ReadByte() != HeadFormat)
            throw new InvalidDataException($"Run {Id} has a head of an unknown format.");
        Experiment = head.ReadString();
        Status = (RunStatus)head.ReadByte();
        Started = head.ReadInt64();
        Ended = head.ReadInt64() is var ended and not long.MinValue ? ended : null;
        Reason = Text();
        TotalSteps = head.ReadInt32();
        Commit = Text();
        Parent = Text();
        for (var map = 0; map < 3; map++)
        {
            places[map] = (int)head.BaseStream.Position;
            for (var strings = 2 * head.Read7BitEncodedInt(); strings > 0; strings--)
                head.BaseStream.Seek(head.Read7BitEncodedInt(), SeekOrigin.Current);
        }
        places[3] = (int)head.BaseStream.Position;

        string? Text() => head.ReadBoolean() ? head.ReadString() : null;
    }

    private static BinaryReader At(int place, byte[] bytes) =>
        new(new MemoryStream(bytes) { Position = place }, Encoding.UTF8);

    private Dictionary<string, string> Map(int which)
    {
        if (packed is null)
            return [];
        using var head = At(places[which], packed);
        var count = head.Read7BitEncodedInt();
        var map = new Dictionary<string, string>(count);
        for (var i = 0; i < count; i++)
        {
            var key = head.ReadString();
            map.Add(key, head.ReadString());
        }
        return map;
    }

    private Dictionary<string, Metric> Summaries()
    {
        var metrics = new Dictionary<string, Metric>();
        if (packed is null)
            return metrics;
        using var head = At(places[3], packed);
        for (var left = head.Read7BitEncodedInt(); left > 0; left--)
        {
            var name = head.ReadString();
            var m = new Metric(head.Read7BitEncodedInt())
            {
                Count = head.Read7BitEncodedInt64(),
                LastStep = head.Read7BitEncodedInt64(),
                LastTime = head.Read7BitEncodedInt64(),
                MinStep = head.Read7BitEncodedInt64(),
                MaxStep = head.Read7BitEncodedInt64(),
                Finite = head.Read7BitEncodedInt64(),
                Last = head.ReadDouble(),
                Min = head.ReadDouble(),
                Max = head.ReadDouble(),
                Sum = head.ReadDouble(),
            };
            (m.Chunks, m.Tail) = (head.Read7BitEncodedInt(), head.Read7BitEncodedInt());
            metrics.Add(name, m);
        }
        return metrics;
    }

    private void Apply(char kind, string name, string? value)
    {
        var map = kind == 't' ? Tags : Params;
        if (value is null)
            map.Remove(name);
        else
            map[name] = value;
    }

    /// <summary>A config's settings by path: {"adapter": {"rank": 16}} is adapter.rank = 16. Lists stay JSON; nulls are
    /// not set.</summary>
    public static Dictionary<string, string> Flat(string json)
    {
        var flat = new Dictionary<string, string>();
        try
        {
            using var document = JsonDocument.Parse(json);
            Add("", document.RootElement);
        }
        catch (JsonException)
        {
            // A config that is no JSON is kept as it is; there is nothing in it to ask for.
        }
        return flat;

        void Add(string path, JsonElement value)
        {
            if (value.ValueKind == JsonValueKind.Object)
            {
                foreach (var member in value.EnumerateObject())
                    Add(path.Length == 0 ? member.Name : $"{path}.{member.Name}", member.Value);
            }
            else if (path.Length > 0 && value.ValueKind != JsonValueKind.Null)
            {
                flat[path] = value.ValueKind == JsonValueKind.String ? value.GetString()! : value.GetRawText();
            }
        }
    }
}
