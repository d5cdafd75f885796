using System.Text.Json;
using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Plan.Blocks;

namespace Memopt.Trainer.Weights;

/// <summary>A folder in PEFT's layout, as its two files describe it and checked against a model. Of the weights only
/// the header is read, and libtorch is not needed: a plan and a check of a config read adapters too.
/// </summary>
internal sealed class PeftAdapter
{
    internal const string ConfigFile = "adapter_config.json",
        WeightsFile = "adapter_model.safetensors";

    internal const string Prefix = "base_model.model.";

    /// <summary>Most bytes of an adapter_config.json; those of large models have some ten thousand.</summary>
    private const long MostBytes = 16 << 20;

    private static readonly string[] types = ["F64", "F32", "F16", "BF16"];

    private readonly List<string> unknown = [],
        misfits = [],
        embeddings = [];

    private PeftAdapter(string folder) => Folder = folder;

    public string Folder { get; }

    /// <summary>Rank, alpha, targets, patterns and biases as settings; the kind is lora.</summary>
    public AdapterConfig Config { get; private set; } = new();

    /// <summary>The base model that it names, and its revision.</summary>
    public (string? Name, string? Revision) Base { get; private init; }

    /// <summary>How its base was loaded when it was trained; null where that was not recorded.</summary>
    public BaseForm? Form { get; private set; }

    /// <summary>What a user may want to know and what changes nothing.</summary>
    public IReadOnlyList<string> Notes { get; private set; } = [];

    /// <summary>Tensors of the pairs, by module.</summary>
    internal Dictionary<string, (string A, string B)> Pairs { get; } = [];

    /// <summary>Tensors of biases, by module.</summary>
    internal Dictionary<string, string> Biases { get; } = [];

    /// <summary>The folder, if both files are in it.</summary>
    /// <exception cref="UserFault">One is not.</exception>
    public static string Check(string folder)
    {
        foreach (var file in new[] { ConfigFile, WeightsFile })
        {
            if (File.Exists(Path.Combine(folder, file)))
                continue;
            if (file == WeightsFile && File.Exists(Path.Combine(folder, "adapter_model.bin")))
            {
                throw new UserFault(
                    $"The adapter in {folder} is a pickle, which can hold any program and is never read.",
                    found: $"adapter_model.bin, and no {WeightsFile}",
                    next: "save it in PEFT with safe_serialization=True"
                );
            }
            throw new UserFault(
                $"{folder} is not an adapter folder.",
                found: $"no {file}",
                next: $"name the folder that holds {ConfigFile} and {WeightsFile}"
            );
        }
        return folder;
    }

    /// <summary>What an adapter says of itself, without a look at its weights or a model.</summary>
    /// <exception cref="UserFault">A setting means something that is not implemented, or is not what it must
    /// be.</exception>
    public static PeftAdapter Described(string folder)
    {
        var file = Path.Combine(Check(folder), ConfigFile);
        var config = Parsed(file);
        JsonElement? Of(string key) =>
            config.TryGetValue(key, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;
        Dictionary<string, T> Map<T>(string key, Func<JsonElement, T> read) =>
            Of(key) is { } map ? Entries(map).ToDictionary(entry => entry.Key, entry => read(entry.Value)) : [];
        return new(folder)
        {
            Config = new()
            {
                Rank = Of("r")!.Value.GetInt32(),
                Alpha = Of("lora_alpha")!.Value.GetDouble(),
                Dropout = Of("lora_dropout")?.GetDouble() ?? 0,
                UseRslora = Of("use_rslora")?.GetBoolean() ?? false,
                Biases = Of("bias")?.GetString() switch
                {
                    "all" => BiasMode.All,
                    "lora_only" => BiasMode.LoraOnly,
                    _ => BiasMode.None,
                },
                RankPattern = Map("rank_pattern", value => value.GetInt32()),
                AlphaPattern = Map("alpha_pattern", value => value.GetDouble()),
            },
            Base = (Of("base_model_name_or_path")?.GetString(), Of("revision")?.GetString()),
        };
    }

    /// <summary>Reads an adapter for a model.</summary>
    /// <exception cref="UserFault">It holds what is not implemented, or does not fit the model.</exception>
    public static PeftAdapter Read(string folder, ModelSpec spec)
    {
        var adapter = Described(folder);
        using var file = SafeTensors.Open(Path.Combine(folder, WeightsFile));
        adapter.Form = BaseForm.Read(file.Metadata, file.File);
        var linears = spec.AllLinears.ToDictionary(linear => linear.Name);
        adapter.Sort(file.Tensors, linears);
        adapter.Fit(file.Tensors, linears);
        adapter.Throw();
        adapter.Settle([.. linears.Keys]);
        return adapter;
    }

    /// <summary>Tells what each tensor is.</summary>
    private void Sort(IReadOnlyDictionary<string, StoredTensor> tensors, Dictionary<string, LinearSpec> linears)
    {
        var second = new List<string>();
        foreach (var (key, stored) in tensors)
        {
            var name = key.StartsWith(Prefix, StringComparison.Ordinal) ? key[Prefix.Length..] : key;
            bool Ends(string end, out string module) =>
                (module = name.EndsWith(end, StringComparison.Ordinal) ? name[..^end.Length] : "").Length > 0;
            if (Ends(".lora_A.weight", out var module))
                Pairs[module] = (key, key.Replace(".lora_A.", ".lora_B."));
            else if (Ends(".lora_B.weight", out module))
                second.Add(module);
            else if (
                name is "lm_head.weight" or "lm_head.base_layer.weight"
                || name.Contains("embed_tokens.", StringComparison.Ordinal)
            )
                embeddings.Add(key);
            else if ((Ends(".base_layer.bias", out module) || Ends(".bias", out module)) && linears.ContainsKey(module))
                Biases[module] = key;
            else
                unknown.Add(key);
            if (!types.Contains(stored.Type))
                unknown.Add($"{key} of type {stored.Type}");
        }
        foreach (var module in second.Where(module => !Pairs.ContainsKey(module)))
            misfits.Add($"{module}.lora_A is missing");
    }

    /// <summary>Compares the pairs with the model and with the settings.</summary>
    private void Fit(IReadOnlyDictionary<string, StoredTensor> tensors, Dictionary<string, LinearSpec> linears)
    {
        foreach (var (module, pair) in Pairs)
        {
            if (!linears.TryGetValue(module, out var linear))
                misfits.Add($"{pair.A}: the model has no such linear");
            else if (!tensors.TryGetValue(pair.B, out var b))
                misfits.Add($"{pair.B} is missing");
            else if (
                tensors[pair.A].Shape is not [var rank, var inputs]
                || b.Shape is not [var outputs, var other]
                || inputs != linear.In
                || outputs != linear.Out
                || rank != other
            )
                misfits.Add(
                    $"{module} (A {Shape(tensors[pair.A])} and B {Shape(b)} for a linear of {linear.In} → {linear.Out})"
                );
            else if (rank != Config.RankOf(module))
                misfits.Add(
                    $"{module} has rank {rank}, and r with rank_pattern in {ConfigFile} gives {Config.RankOf(module)}"
                );
        }
        foreach (var (module, key) in Biases)
        {
            var (linear, shape) = (linears[module], tensors[key].Shape);
            if (!linear.HasBias || shape is not [var length] || length != linear.Out)
                misfits.Add(
                    $"{key} {Shape(tensors[key])} for a linear of {linear.Out} outputs"
                        + $"{(linear.HasBias ? "" : ", without a bias")}"
                );
        }

        static string Shape(StoredTensor tensor) => $"[{string.Join(", ", tensor.Shape)}]";
    }

    private void Throw()
    {
        static string Some(List<string> found) =>
            string.Join("; ", found.Take(8)) + (found.Count > 8 ? $"; and {found.Count - 8} more" : "");
        if (embeddings.Count > 0)
        {
            throw new UserFault(
                $"The adapter in {Folder} holds embedding layers, which is not supported.",
                found: Some(embeddings),
                next: "save it in PEFT with save_embedding_layers=False, or, where they were trained or resized, "
                    + "merge it there (merge_and_unload) and use the merged model"
            );
        }
        if (unknown.Count > 0)
        {
            throw new UserFault(
                $"The adapter in {Folder} holds tensors that are no LoRA pairs, which is not supported.",
                found: Some(unknown),
                next: "use an adapter that was trained as plain LoRA over this model's linears"
            );
        }
        if (misfits.Count > 0 || Pairs.Count == 0)
        {
            throw new UserFault(
                $"The adapter in {Folder} does not fit the model.",
                found: misfits.Count > 0 ? Some(misfits) : "no lora_A tensors",
                next: "use the base model that it was trained on"
            );
        }
    }

    /// <summary>Completes the settings by what the tensors tell. Keys of patterns that fit no pair are reported and
    /// dropped: PEFT passes over them.
    /// </summary>
    private void Settle(IReadOnlyList<string> linears)
    {
        bool Fits(string key) => Pairs.Keys.Any(module => ModulePattern.Fits(key, module));
        Dictionary<string, T> Fitting<T>(IReadOnlyDictionary<string, T> patterns) =>
            patterns.Where(pattern => Fits(pattern.Key)).ToDictionary();
        IEnumerable<string> Idle(string map, IEnumerable<string> keys) =>
            keys.Where(key => !Fits(key))
                .Select(key => $"{ConfigFile}: \"{key}\" in {map} fits no module of the adapter and is passed over");
        Notes = [.. Idle("rank_pattern", Config.RankPattern.Keys), .. Idle("alpha_pattern", Config.AlphaPattern.Keys)];
        Config = Config with
        {
            RankPattern = Fitting(Config.RankPattern),
            AlphaPattern = Fitting(Config.AlphaPattern),
            Targets = linears.All(name => Pairs.ContainsKey(name) == Targets.AllLinear.Cover(name))
                ? Targets.AllLinear
                : new([.. Targets.NamesOf(linears, Pairs.ContainsKey)]),
        };
    }

    private static Dictionary<string, JsonElement> Parsed(string file)
    {
        try
        {
            if (new FileInfo(file).Length is > MostBytes and var length)
                throw new JsonException($"it has {length:N0} bytes, more than {MostBytes:N0}");
            using var json = JsonDocument.Parse(UntrustedFile.ReadAllBytes(file, UntrustedFile.Settings));
            if (json.RootElement.ValueKind != JsonValueKind.Object)
                throw new JsonException("it is no object");
            var config = Entries(json.RootElement.Clone());
            return PeftKeys.Problems(config) is not { Count: > 0 } problems
                ? config
                : throw new UserFault(
                    $"{file} describes an adapter that cannot be loaded.",
                    found: string.Join("; ", problems),
                    next: "use an adapter that was trained as plain LoRA, or train one: dotnet memopt run"
                );
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new UserFault($"{file} cannot be read.", found: e.Message, next: "download the file again", inner: e);
        }
    }

    /// <summary>Of a key that is written twice the last value counts, as in Python.</summary>
    private static Dictionary<string, JsonElement> Entries(JsonElement map)
    {
        var entries = new Dictionary<string, JsonElement>();
        foreach (var entry in map.EnumerateObject())
            entries[entry.Name] = entry.Value;
        return entries;
    }
}
