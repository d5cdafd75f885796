using System.Buffers;
using System.Collections;
using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Unicode;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Config;

/// <summary>A setting changed on the command line.</summary>
internal sealed record Override(string Key, string Old, string New);

/// <summary>memopt.json → <see cref="RunConfig"/>, or every problem at once with line and column. Comments and trailing
/// commas are allowed.</summary>
internal static partial class RunConfigFile
{
    private static readonly JsonReaderOptions relaxed = new()
    {
        CommentHandling = JsonCommentHandling.Skip,
        AllowTrailingCommas = true,
    };
    private static readonly JsonSerializerOptions strict = new() { RespectNullableAnnotations = true };

    /// <param name="path">The file.</param>
    /// <param name="overrides">Settings as <c>a.b=value</c>; the value is JSON, or a string when it is not.</param>
    /// <param name="checkFiles">Whether data and model must exist.</param>
    public static ProjectConfig Read(string path, IReadOnlyList<string> overrides, bool checkFiles = true)
    {
        if (!File.Exists(path))
        {
            throw new UserFault(
                $"{path} is missing.",
                found: $"no such file in {Path.GetDirectoryName(Path.GetFullPath(path))}",
                next: "dotnet new memopt-qlora -n MyTune   (or name a config: dotnet memopt run my.json)"
            );
        }
        return Read(path, UntrustedFile.ReadAllBytes(path, UntrustedFile.Settings), overrides, checkFiles);
    }

    /// <summary>The defaults with overrides, where there is no file.</summary>
    public static ProjectConfig Default(IReadOnlyList<string> overrides) =>
        Read("memopt.json", "{}"u8.ToArray(), overrides, checkFiles: false);

    /// <summary>Settings that a program made, as if they were a file of this name.</summary>
    internal static ProjectConfig Read(string path, RunConfig config, IReadOnlyList<string> overrides) =>
        Recorded(path, Write(config).ToJsonString(), overrides);

    /// <summary>The settings that a run recorded, with overrides; paths in them are relative to where
    /// <paramref name="path"/> would lie.</summary>
    public static ProjectConfig Recorded(string path, string json, IReadOnlyList<string> overrides) =>
        Read(path, Encoding.UTF8.GetBytes(json), overrides, checkFiles: true, whole: true);

    private static ProjectConfig Read(
        string path,
        byte[] text,
        IReadOnlyList<string> overrides,
        bool checkFiles,
        bool whole = false
    )
    {
        var reading = new ConfigReader(path) { Whole = whole };
        var config = reading.Root(text, new RunConfig());
        var changed = new List<Override>();
        foreach (var item in overrides)
            config = Override(config, item, reading, changed);
        if (reading.Problems.Count == 0)
            reading.Contradictions(config, Path.GetDirectoryName(Path.GetFullPath(path))!, checkFiles);
        reading.Throw("dotnet memopt config schema   (lists every setting)");
        return new ProjectConfig(
            config,
            path,
            Path.GetDirectoryName(Path.GetFullPath(path))!,
            Json(config),
            HashOf(config),
            changed
        );
    }

    /// <summary>The same config with other settings, as if they were written in it.</summary>
    internal static ProjectConfig With(ProjectConfig loaded, RunConfig config) =>
        loaded with
        {
            Settings = config,
            Json = Json(config),
            Hash = HashOf(config),
        };

    private static string Json(RunConfig config) =>
        Write(config).ToJsonString(new JsonSerializerOptions { WriteIndented = true });

    private static string HashOf(RunConfig config) =>
        Convert.ToHexStringLower(
            SHA256.HashData(Encoding.UTF8.GetBytes(Write(config, pinnedOnly: true).ToJsonString()))
        );

    /// <summary>A problem of a setting that shows only when the config is put to use, at its place in the
    /// file.</summary>
    public static Problem At(ProjectConfig config, string path, string message, string code)
    {
        if (!File.Exists(config.File))
            return new(path, message, Code: code); // a config made in code
        var reading = new ConfigReader(config.File)
        {
            Text = UntrustedFile.ReadAllBytes(config.File, UntrustedFile.Settings),
        };
        reading.Locate(path, message, code);
        return reading.Problems[0] with { File = config.File };
    }

    /// <summary>Pinned settings that differ between a checkpoint's config (as JSON) and this one, secrets left out: a
    /// checkpoint holds none.</summary>
    public static IReadOnlyList<Override> PinnedDifferences(string saved, RunConfig now)
    {
        // A setting that is younger than the checkpoint was at its default.
        var (before, after) = (
            Flat(new RunConfig()),
            Flat(JsonNode.Parse(Secrets.Redact(Write(now, pinnedOnly: true).ToJsonString()))!)
        );
        foreach (var (key, value) in Flat(JsonNode.Parse(Secrets.Redact(saved))!))
            before[key] = value;
        return
        [
            .. after
                .Where(pair => before[pair.Key] != pair.Value)
                .Select(pair => new Override(pair.Key, before[pair.Key], pair.Value)),
        ];
    }

    /// <summary>Every setting by its dotted key.</summary>
    public static Dictionary<string, string> Flat(RunConfig config) => Flat(Write(config));

    private static Dictionary<string, string> Flat(JsonNode root)
    {
        var flat = new Dictionary<string, string>();
        foreach (var (section, settings) in root.AsObject())
        {
            foreach (var (key, value) in settings!.AsObject())
                flat[$"{section}.{key}"] = value?.ToJsonString() ?? "null";
        }
        return flat;
    }

    /// <summary>The settings as JSON in declaration order.</summary>
    public static JsonObject Write(RunConfig config, bool pinnedOnly = false) =>
        new(
            Settings(typeof(RunConfig))
                .Select(section =>
                    KeyValuePair.Create(
                        Key(section),
                        (JsonNode?)
                            new JsonObject(
                                Settings(section.PropertyType)
                                    .Where(setting =>
                                        !pinnedOnly || setting.GetCustomAttribute<PinnedAttribute>() is not null
                                    )
                                    .Select(setting =>
                                        KeyValuePair.Create(
                                            Key(setting),
                                            Node(setting.GetValue(section.GetValue(config)))
                                        )
                                    )
                            )
                    )
                )
        );

    internal static string Key(MemberInfo member) => JsonNamingPolicy.CamelCase.ConvertName(member.Name);

    internal static IEnumerable<PropertyInfo> Settings(Type record) =>
        record.GetProperties(BindingFlags.Public | BindingFlags.Instance).Where(p => p.CanWrite);

    /// <summary>
    /// The values of an enumeration by their names, then by the names that other tools have for them.
    /// </summary>
    public static IReadOnlyDictionary<string, object> Names(Type type)
    {
        var values = Enum.GetValues(type).Cast<object>().ToList();
        var aliases = values.SelectMany(value =>
            (type.GetField(value.ToString()!)?.GetCustomAttribute<AliasAttribute>()?.Names ?? []).Select(name =>
                (name, value)
            )
        );
        return values.Select(value => (Spelling(value), value)).Concat(aliases).ToDictionary();
    }

    internal static string Spelling(object value) => JsonNamingPolicy.CamelCase.ConvertName(value.ToString()!);

    internal static JsonNode? Node(object? value) =>
        value switch
        {
            null => null,
            Enum e => Spelling(e),
            Targets { All: true } => "all-linear",
            Targets targets => new JsonArray([.. targets.Names.Select(name => (JsonNode)name)]),
            DataSources { List: [var one] } => Node(one),
            DataSources sources => new JsonArray([.. sources.List.Select(Node)]),
            DataSource { Weight: 1, Columns: null, Format: null } source => source.ToString(),
            DataSource source => new JsonObject(
                new KeyValuePair<string, JsonNode?>[]
                {
                    new("source", source.ToString()),
                    new("weight", Node(source.Weight)),
                    new("columns", Node(source.Columns)),
                    new("format", Node(source.Format)),
                }.Where(pair => pair.Value is not null)
            ),
            string text => text,
            bool flag => flag,
            int number => number,
            double number => number == Math.Floor(number) && Math.Abs(number) < 1e15 ? (JsonNode)(long)number : number,
            // The order of patterns decides which one counts; that of labels decides nothing.
            IReadOnlyDictionary<string, int> ranks => new JsonObject(
                ranks.Select(pair => KeyValuePair.Create(pair.Key, Node(pair.Value)))
            ),
            IReadOnlyDictionary<string, double> alphas => new JsonObject(
                alphas.Select(pair => KeyValuePair.Create(pair.Key, Node(pair.Value)))
            ),
            IDictionary map => new JsonObject(
                map.Keys.Cast<string>()
                    .Order(StringComparer.Ordinal)
                    .Select(key => KeyValuePair.Create(key, Node(map[key])))
            ),
            IEnumerable list => new JsonArray([.. list.Cast<object>().Select(Node)]),
            _ => throw new InvalidOperationException($"no JSON for {value.GetType()}"),
        };

    private static RunConfig Override(RunConfig config, string item, ConfigReader reading, List<Override> changed)
    {
        var cut = item.IndexOf('=');
        var name = cut < 0 ? item : item[..cut];
        if (cut < 0 || Find(name) is not { } setting)
        {
            reading.Problem(
                $"--set {item}",
                cut < 0 ? "needs key=value" : $"names no setting{ConfigReader.Like(name, Names(), Near.Setting(name))}",
                0,
                0,
                "MEMOPT0002"
            );
            return config;
        }
        var parts = name.Split('.', 3);
        var section = Settings(typeof(RunConfig)).First(p => Key(p) == parts[0]);
        var old = section.GetValue(config)!;
        var value = item[(cut + 1)..];
        // A third part is a key of a map: tracking.tags.team=nlp.
        var json = parts.Length == 3 ? MapWith(setting.GetValue(old), parts[2], value) : value;
        var before = reading.Problems.Count;
        var literal =
            setting.PropertyType == typeof(string) ? value != "null" && !value.StartsWith('"') : !IsJson(json);
        var reader = new Utf8JsonReader(
            Encoding.UTF8.GetBytes(literal ? JsonSerializer.Serialize(json) : json),
            relaxed
        );
        reader.Read();
        var parsed = reading.Value(ref reader, setting, $"{parts[0]}.{parts[1]}", located: false);
        if (reading.Problems.Count > before)
            return config;
        changed.Add(
            new(
                $"{parts[0]}.{parts[1]}",
                Node(setting.GetValue(old))?.ToJsonString() ?? "null",
                Node(parsed)?.ToJsonString() ?? "null"
            )
        );
        return (RunConfig)With(config, section, With(old, setting, parsed));
    }

    /// <summary>Every setting's name, <c>section.setting</c>.</summary>
    public static IEnumerable<string> Names() =>
        Settings(typeof(RunConfig))
            .SelectMany(section => Settings(section.PropertyType).Select(setting => $"{Key(section)}.{Key(setting)}"));

    /// <summary>The setting of a name; a third part is a key of a map.</summary>
    private static PropertyInfo? Find(string name)
    {
        var parts = name.Split('.', 3);
        var setting =
            parts.Length < 2 || Settings(typeof(RunConfig)).FirstOrDefault(p => Key(p) == parts[0]) is not { } section
                ? null
                : Settings(section.PropertyType).FirstOrDefault(p => Key(p) == parts[1]);
        return setting is not null && (parts.Length < 3 || IsMap(setting.PropertyType)) ? setting : null;
    }

    private static bool IsJson(string text)
    {
        try
        {
            using var document = JsonDocument.Parse(text);
            return true;
        }
        catch (JsonException)
        {
            return false;
        }
    }

    private static bool IsMap(Type type) =>
        type.IsGenericType && type.GetGenericTypeDefinition() == typeof(IReadOnlyDictionary<,>);

    private static string MapWith(object? map, string key, string value)
    {
        var node = (JsonObject)Node(map)!;
        try
        {
            node[key] = JsonNode.Parse(value);
        }
        catch (JsonException)
        {
            node[key] = value;
        }
        return node.ToJsonString();
    }

    /// <summary>A copy of a record with one property changed.</summary>
    private static object With(object record, PropertyInfo property, object? value)
    {
        var copy = record.GetType().GetMethod("<Clone>$")!.Invoke(record, null)!;
        property.SetValue(copy, value);
        return copy;
    }

    /// <summary>One reading of a file: binds by the record's own declarations and collects what is wrong.</summary>
    private sealed partial class ConfigReader(string file)
    {
        private const int MostProblems = 1_000;

        private static readonly Dictionary<string, DataFormat> formats = Names(typeof(DataFormat))
            .ToDictionary(pair => pair.Key, pair => (DataFormat)pair.Value);

        /// <summary>The file's bytes without the mark that some editors put before them.</summary>
        public byte[] Text
        {
            get;
            set => field = value.AsSpan().StartsWith(Encoding.UTF8.Preamble) ? value[3..] : value;
        } = [];

        /// <summary>Whether every setting is written, so that two that exclude each other are no
        /// contradiction.</summary>
        public bool Whole { get; init; }

        public List<Problem> Problems { get; } = [];

        private (int Offset, int Line, int Column) lastPlace = (0, 1, 1);

        public void Problem(string path, string message, int line, int column, string code) =>
            Add(new(path, message, line > 0 ? file : null, line, column, code));

        // A file of a megabyte can have a hundred thousand problems, and near names are looked for at each.
        private void Add(Problem problem)
        {
            Problems.Add(problem);
            if (Problems.Count == MostProblems)
                Throw($"fix these first: reading ended at problem {MostProblems:N0}");
        }

        /// <summary>Of a setting that is not written, and of the file as a whole.</summary>
        private void Unplaced(string path, string message, string code) => Add(new(path, message, file, Code: code));

        /// <summary>The whole file, as far as it can be read.</summary>
        public T Root<T>(byte[] text, T defaults)
            where T : notnull
        {
            Text = text;
            var reader = new Utf8JsonReader(Text, relaxed);
            // Where the text ends that is UTF-8.
            if (
                Utf8.ToUtf16(Text, new char[Text.Length], out var read, out _, replaceInvalidSequences: false)
                != OperationStatus.Done
            )
            {
                var (line, column) = Position(read);
                Problem("", "is not UTF-8 text from here on", line, column, "MEMOPT0001");
                return defaults;
            }
            try
            {
                reader.Read();
                defaults = (T)Record(ref reader, defaults, "")!;
                while (reader.Read()) { }
            }
            catch (JsonException e)
            {
                var start = 0;
                for (var lines = e.LineNumber ?? 0; lines > 0; lines--)
                    start += Text.AsSpan(start).IndexOf((byte)'\n') + 1;
                var (line, column) = Position(start + (int)(e.BytePositionInLine ?? 0));
                Problem("", $"not valid JSON: {e.Message.Split(" LineNumber")[0]}", line, column, "MEMOPT0001");
            }
            catch (InvalidOperationException e)
            {
                At(ref reader, "", $"holds text that is not valid Unicode ({e.Message})", "MEMOPT0001");
            }
            return defaults;
        }

        /// <summary>Ends the reading when anything was wrong.</summary>
        public void Throw(string next)
        {
            if (Problems.Count > 0)
            {
                throw new UserFault(
                    Problems.Count == 1 ? $"{file} has a problem." : $"{file} has {Problems.Count} problems.",
                    next: next
                )
                {
                    Problems = [.. Problems.OrderBy(p => p.Line).ThenBy(p => p.Column)],
                };
            }
        }

        public object? Record(ref Utf8JsonReader reader, object defaults, string path)
        {
            if (reader.TokenType != JsonTokenType.StartObject)
            {
                At(ref reader, path, $"must be an object, found {Found(ref reader)}", "MEMOPT0003");
                reader.Skip();
                return defaults;
            }
            var copy = defaults.GetType().GetMethod("<Clone>$")!.Invoke(defaults, null)!;
            var settings = Settings(defaults.GetType()).ToDictionary(Key);
            var seen = new HashSet<string>();
            while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
            {
                var name = reader.GetString()!;
                var full = path.Length == 0 ? name : $"{path}.{name}";
                if (!seen.Add(name))
                    At(ref reader, full, "is written twice", "MEMOPT0002");
                if (!settings.TryGetValue(name, out var property))
                {
                    if (path.Length > 0 || name != "$schema")
                        At(
                            ref reader,
                            full,
                            $"is not a setting{Like(name, settings.Keys, Near.Setting(name)?.Split('=')[0])}",
                            "MEMOPT0002"
                        );
                    reader.Read();
                    reader.Skip();
                    continue;
                }
                reader.Read();
                var before = Problems.Count;
                var value =
                    defaults is RunConfig
                        ? Record(ref reader, property.GetValue(copy)!, full)
                        : Value(ref reader, property, full);
                if (Problems.Count == before || value is not null)
                    property.SetValue(copy, value);
            }
            if (!Whole && path == "train" && seen.Contains("steps") && seen.Contains("epochs"))
                At(ref reader, "train.steps", "and train.epochs are both written: keep one", "MEMOPT0006");
            return copy;
        }

        /// <summary>One value by the type its property declares, or null and a problem.</summary>
        public object? Value(ref Utf8JsonReader reader, PropertyInfo property, string path, bool located = true)
        {
            var type = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
            var optional =
                Nullable.GetUnderlyingType(property.PropertyType) is not null
                || new NullabilityInfoContext().Create(property).WriteState == NullabilityState.Nullable;
            if (reader.TokenType == JsonTokenType.Null && optional)
                return null;
            object? value = null;
            string wanted;
            if (type == typeof(string))
            {
                wanted = "a string that is not empty";
                value =
                    reader.TokenType == JsonTokenType.String && reader.GetString() is { Length: > 0 } text
                        ? text
                        : null;
            }
            else if (type == typeof(bool))
            {
                wanted = "true or false";
                value = reader.TokenType is JsonTokenType.True or JsonTokenType.False ? reader.GetBoolean() : null;
            }
            else if (type == typeof(int))
            {
                wanted = "a whole number";
                value = reader.TokenType == JsonTokenType.Number && reader.TryGetInt32(out var number) ? number : null;
            }
            else if (type == typeof(double))
            {
                wanted = "a number";
                value = reader.TokenType == JsonTokenType.Number ? reader.GetDouble() : null;
            }
            else if (type.IsEnum)
            {
                wanted = OneOf(type);
                value =
                    reader.TokenType == JsonTokenType.String
                        ? Names(type).GetValueOrDefault(reader.GetString()!)
                        : null;
            }
            else if (type == typeof(Targets))
            {
                wanted = "\"all-linear\" or a list of module names";
                if (reader.TokenType == JsonTokenType.String)
                    value = reader.GetString() == "all-linear" ? Targets.AllLinear : null;
                else if (
                    List<string>(ref reader) is { Count: > 0 } names
                    && names.All(name => !string.IsNullOrEmpty(name))
                )
                    value = new Targets(names);
            }
            else if (type == typeof(IReadOnlyList<double>))
            {
                wanted = "a list of numbers";
                value = List<double>(ref reader);
            }
            else if (type == typeof(DataSources))
            {
                wanted =
                    "a source, or a list of sources: \"train.jsonl\" or {\"source\": …, \"weight\": …, "
                    + "\"columns\": {…}, \"format\": …}";
                value = Sources(ref reader, path, located);
            }
            else if (type == typeof(SweepParameters))
            {
                wanted = "an object of settings";
                value = Parameters(ref reader, path);
            }
            else
            {
                wanted = "an object";
                value =
                    type == typeof(IReadOnlyDictionary<string, int>) ? Map<int>(ref reader)
                    : type == typeof(IReadOnlyDictionary<string, double>) ? Map<double>(ref reader)
                    : Map<string>(ref reader);
            }
            if (value is IDictionary map && map.Values.Cast<object?>().Any(v => v is null or <= 0 or <= 0.0))
                (value, wanted) = (null, "an object whose values are set and above 0");
            if (value is null)
            {
                At(ref reader, path, $"must be {wanted}, found {Found(ref reader)}", "MEMOPT0003", located);
                reader.Skip();
                return null;
            }
            if (
                property.GetCustomAttribute<RangeAttribute>() is { } range
                && (
                    Convert.ToDouble(value) < Convert.ToDouble(range.Minimum)
                    || Convert.ToDouble(value) > Convert.ToDouble(range.Maximum)
                    || double.IsNaN(Convert.ToDouble(value))
                )
            )
            {
                At(
                    ref reader,
                    path,
                    $"must be between {range.Minimum} and {range.Maximum}, found {value}",
                    "MEMOPT0004",
                    located
                );
                return null;
            }
            return value;
        }

        /// <summary>What no single setting shows: settings that contradict each other, and files that are not
        /// there.</summary>
        public void Contradictions(RunConfig config, string folder, bool checkFiles)
        {
            void Against(string path, string message) => Locate(path, message, "MEMOPT0006");
            if (config.Train.MicroBatch is { } micro && config.Train.BatchSize % micro != 0)
                Against(
                    "train.microBatch",
                    $"is {micro}, which does not divide train.batchSize = {config.Train.BatchSize}"
                );
            if (config.Train.Betas.Count != 2 || config.Train.Betas.Any(b => b is < 0 or >= 1))
                Against("train.betas", "must be two numbers from 0 to below 1");
            if (config.Adapter.Kind == AdapterKind.None && config.Adapter.From is not null)
                Against("adapter.from", "needs adapter.kind lora or qlora");
            void Patterns(string path, IEnumerable<string> keys)
            {
                foreach (var key in keys)
                {
                    if (ModulePattern.Problem(key) is { } problem)
                        Locate($"{path}/{key}", problem, "MEMOPT0004");
                }
            }
            Patterns("adapter/rankPattern", config.Adapter.RankPattern.Keys);
            Patterns("adapter/alphaPattern", config.Adapter.AlphaPattern.Keys);
            if (
                config.Memory.OffloadActivations == true
                && (
                    config.Memory.Recompute == false
                    || (config.Memory.Strategy == MemoryStrategy.Manual && config.Memory.Recompute != true)
                )
            )
                Against("memory.offloadActivations", "needs memory.recompute = true");
            if (config.Memory.StreamLayers > 0 && config.Adapter.Kind == AdapterKind.None)
                Against(
                    "memory.streamLayers",
                    "needs adapter.kind lora or qlora: weights that are trained cannot be streamed"
                );
            if (config.Data.Packing && config.Data.MaxLength < 2)
                Against("data.packing", "needs a longer data.maxLength");
            if (!AdapterRegistry.IsRule(config.Tracking.Best))
                Against(
                    "tracking.best",
                    $"is \"{config.Tracking.Best}\": write min(eval_loss), max(eval_accuracy) or another metric"
                );
            if (config.Tracking.Register is { } name && AdapterRegistry.NameOf(name) != name)
                Against("tracking.register", $"is \"{name}\": a name has letters, digits, . _ and -");
            if (config.Data.EvalShare > 0 && config.Data.Eval is not null)
                Against("data.evalShare", "and data.eval are both written: keep one");
            if (!checkFiles)
                return;
            try
            {
                ModelSource.Parse(config.Model.Source, folder);
            }
            catch (UserFault e)
            {
                Locate("model.source", $"{e.Message} ({e.Found}); {e.Next}", "MEMOPT0005");
            }
            void Sources(string path, DataSources? sources)
            {
                foreach (
                    var problem in (sources?.List ?? [])
                        .Select(source => Memopt.Trainer.Sources.DataFiles.Problem(source, folder))
                        .OfType<string>()
                )
                    Locate(path, problem, "MEMOPT0005");
            }
            Sources("data.train", config.Data.Train);
            Sources("data.eval", config.Data.Eval);
            // A name that only the storage account knows is asked for when it is needed.
            var place = config.Tracking.Artifacts;
            if (
                config.Adapter.From is { } from
                && !Directory.Exists(Path.Combine(folder, from))
                && ProjectPaths.ProducerConfig(Path.Combine(folder, from)) is null
                && !(AdapterRegistry.IsReference(from) && BlobLocation.Is(place))
                && !Registered(from, Path.Combine(folder, place))
            )
                Locate(
                    "adapter.from",
                    $"\"{from}\" is not a folder in {folder}, and no registered adapter",
                    "MEMOPT0005"
                );

            static bool Registered(string reference, string artifacts)
            {
                try
                {
                    return new AdapterRegistry(artifacts).Resolve(reference).Name.Length > 0;
                }
                catch (TrackingException)
                {
                    return false;
                }
            }
        }

        /// <summary>One source or a list of them; null, or a problem and null, when it is something else.</summary>
        private DataSources? Sources(ref Utf8JsonReader reader, string path, bool located)
        {
            var list = new List<DataSource>();
            if (reader.TokenType != JsonTokenType.StartArray)
                return Source(ref reader, path, located) is { } one ? new([one]) : null;
            while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
            {
                if (Source(ref reader, path, located) is not { } source)
                {
                    At(
                        ref reader,
                        path,
                        $"each source must be a string or an object, found {Found(ref reader)}",
                        "MEMOPT0003",
                        located
                    );
                    reader.Skip();
                    source = new("");
                }
                list.Add(source);
            }
            return list.Count > 0 ? new(list) : null;
        }

        private DataSource? Source(ref Utf8JsonReader reader, string path, bool located)
        {
            if (reader.TokenType == JsonTokenType.String)
                return reader.GetString() is { Length: > 0 } text ? DataSource.Parse(text) : null;
            if (reader.TokenType != JsonTokenType.StartObject)
                return null;
            var source = new DataSource("");
            while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
            {
                var key = reader.GetString()!;
                reader.Read();
                var wanted = "";
                switch (key)
                {
                    case "source"
                        when reader.TokenType == JsonTokenType.String && reader.GetString() is { Length: > 0 } text:
                        source = DataSource.Parse(text) with
                        {
                            Weight = source.Weight,
                            Columns = source.Columns,
                            Format = source.Format,
                        };
                        continue;
                    case "weight"
                        when reader.TokenType == JsonTokenType.Number
                            && reader.GetDouble() is > 0 and <= 1000 and var weight:
                        source = source with { Weight = weight };
                        continue;
                    case "columns"
                        when Map<string>(ref reader) is { } columns
                            && columns.Values.All(column => !string.IsNullOrEmpty(column)):
                        source = source with { Columns = columns };
                        continue;
                    case "format"
                        when reader.TokenType == JsonTokenType.String
                            && formats.TryGetValue(reader.GetString()!, out var format):
                        source = source with { Format = format };
                        continue;
                    case "source":
                        wanted = "a string that is not empty";
                        break;
                    case "weight":
                        wanted = "a number above 0, at most 1000";
                        break;
                    case "columns":
                        wanted = "an object of column names";
                        break;
                    case "format":
                        wanted = OneOf(typeof(DataFormat));
                        break;
                }
                if (wanted.Length > 0)
                    At(
                        ref reader,
                        $"{path}.{key}",
                        $"must be {wanted}, found {Found(ref reader)}",
                        "MEMOPT0003",
                        located
                    );
                else
                    At(
                        ref reader,
                        $"{path}.{key}",
                        $"is not a setting of a source{Like(key, ["source", "weight", "columns", "format"])}",
                        "MEMOPT0002",
                        located
                    );
                reader.Skip();
            }
            if (source.Source.Length == 0)
                At(ref reader, path, "a source is an object without \"source\"", "MEMOPT0003", located);
            return source;
        }

        /// <summary>" (did you mean …?)" for a near name, or else for <paramref name="otherwise"/>.</summary>
        public static string Like(string name, IEnumerable<string> known, string? otherwise = null) =>
            (Near.Of(name, known) ?? otherwise) is { } near ? $" (did you mean {near}?)" : "";

        private static string OneOf(Type type) =>
            "one of "
            + string.Join(", ", Enum.GetValues(type).Cast<object>().Select(value => $"\"{Spelling(value)}\""));

        private void At(ref Utf8JsonReader reader, string path, string message, string code, bool located = true)
        {
            var (line, column) = located ? Position((int)reader.TokenStartIndex) : (0, 0);
            Problem(path, message, line, column, code);
        }

        /// <summary>Finds a setting in the file again, for a problem that shows only when all are read. A slash parts a
        /// path whose second part has dots.</summary>
        public void Locate(string path, string message, string code)
        {
            var parts = path.Split(path.Contains('/') ? '/' : '.');
            path = path.Replace('/', '.');
            var reader = new Utf8JsonReader(Text, relaxed);
            var inside = "";
            while (reader.Read())
            {
                if (reader.TokenType != JsonTokenType.PropertyName)
                    continue;
                if (reader.CurrentDepth == 1)
                    inside = reader.GetString()!;
                if (reader.CurrentDepth == parts.Length && inside == parts[0] && reader.GetString() == parts[^1])
                {
                    At(ref reader, path, message, code);
                    return;
                }
            }
            Unplaced(path, message, code);
        }

        private (int Line, int Column) Position(int offset)
        {
            offset = Math.Min(offset, Text.Length);
            if (offset < lastPlace.Offset)
                lastPlace = (0, 1, 1);
            // Counted on from the last place that was asked for: every value of a sweep asks.
            var between = Text.AsSpan(lastPlace.Offset..offset);
            var (lines, behind) = (
                between.Count((byte)'\n'),
                Encoding.UTF8.GetCharCount(between[(between.LastIndexOf((byte)'\n') + 1)..])
            );
            lastPlace = (offset, lastPlace.Line + lines, lines > 0 ? behind + 1 : lastPlace.Column + behind);
            return (lastPlace.Line, lastPlace.Column);
        }

        private static string Found(ref Utf8JsonReader reader) =>
            reader.TokenType switch
            {
                JsonTokenType.StartObject => "an object",
                JsonTokenType.StartArray => "a list",
                JsonTokenType.String => $"\"{reader.GetString()}\"",
                _ => Encoding.UTF8.GetString(reader.ValueSpan),
            };

        private static List<T>? List<T>(ref Utf8JsonReader reader) =>
            reader.TokenType == JsonTokenType.StartArray ? Parse<List<T>>(reader, ref reader) : null;

        private static Dictionary<string, T>? Map<T>(ref Utf8JsonReader reader) =>
            reader.TokenType == JsonTokenType.StartObject ? Parse<Dictionary<string, T>>(reader, ref reader) : null;

        /// <summary>The whole value, or null with the reader where it was.</summary>
        private static T? Parse<T>(Utf8JsonReader copy, ref Utf8JsonReader reader)
            where T : class
        {
            try
            {
                var value = JsonSerializer.Deserialize<T>(ref copy, strict);
                reader.Skip();
                return value;
            }
            catch (Exception e) when (e is JsonException or InvalidOperationException)
            {
                return null;
            }
        }
    }
}
