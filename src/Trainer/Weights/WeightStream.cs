using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Plan.Blocks;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>A model folder's weights as parts of a decoder: each tensor is read, cast or quantized, and placed before
/// the next is touched, so the model never lies in memory in 16 bits when it is to be kept in 4.
/// </summary>
internal sealed class WeightStream : IWeightSource, IDisposable
{
    private readonly Dictionary<string, SafeTensors> files = [];
    private readonly Dictionary<string, SafeTensors> where = [];
    private readonly ModelSpec spec;
    private readonly ScalarType type;
    private readonly Device device;
    private readonly LinearFactory linears;
    private readonly Nf4Scratch scratch = new(); // the model's, once there is one
    private readonly IProgress<int>? progress;
    private readonly Staging? staging;
    private readonly Action<DecoderLayer>? built;
    private readonly TensorParallel? tensor;
    private int read;

    /// <param name="folder">Holds model.safetensors, or else model.safetensors.index.json and its shards.</param>
    /// <param name="spec">What must be there; a missing, unexpected or misshapen tensor is a fault that lists all of
    /// them.</param>
    /// <param name="type">Type the unquantized weights are kept in.</param>
    /// <param name="device">Where they go.</param>
    /// <param name="linears">Makes the linears; null keeps each as a matrix in <paramref name="type"/>.</param>
    /// <param name="progress">Tensors read so far.</param>
    /// <param name="built">Given each layer as soon as its weights are there, so that it may put them elsewhere before
    /// the next layer's come.</param>
    /// <param name="tensor">The ranks that share the matrices; null where each has all of them.</param>
    public WeightStream(
        string folder,
        ModelSpec spec,
        ScalarType type,
        Device device,
        LinearFactory? linears = null,
        IProgress<int>? progress = null,
        Action<DecoderLayer>? built = null,
        TensorParallel? tensor = null
    )
    {
        this.tensor = tensor;
        (this.spec, this.type, this.device, this.progress, this.built) = (spec, type, device, progress, built);
        this.linears = linears ?? new(type);
        staging = device.type == DeviceType.CUDA ? new() : null;
        try
        {
            foreach (var (name, file) in Index(folder))
            {
                if (!files.TryGetValue(file, out var open))
                    files[file] = open = SafeTensors.Open(Path.Combine(folder, file));
                if (open.Tensors.ContainsKey(name))
                    where[name] = open;
            }
            Account(folder);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public Parameter Weight(string name, TensorSplit? split = null, bool isPartial = false)
    {
        using var scope = NewDisposeScope();
        progress?.Report(++read);
        var whole = Read(name, type);
        var slice = tensor?.Slice(whole.shape, split, isPartial);
        return new Parameter(name, slice?.Take(whole) ?? whole) { Slice = slice };
    }

    public void OnLayerLoaded(DecoderLayer layer) => built?.Invoke(layer);

    public Linear Linear(LinearSpec spec)
    {
        var name = spec.Name + ".bias";
        var bias = where.ContainsKey(name) ? Weight(name, spec.Split.Dim == 0 ? spec.Split : null) : null;
        progress?.Report(++read);
        return linears.Create(
            spec.Name,
            wanted => Read(spec.Name + ".weight", wanted),
            bias,
            scratch,
            tensor?.Slice([spec.Out, spec.In], spec.Split)
        );
    }

    public void Dispose()
    {
        staging?.Dispose();
        foreach (var file in files.Values)
            file.Dispose();
    }

    /// <summary>A stored tensor where it is to be, in a type or else its own.</summary>
    private Tensor Read(string name, ScalarType? wanted = null)
    {
        if (staging is not null)
            return staging.Read(where[name], name, device, wanted);
        var tensor = where[name].Read(name).to(device);
        return wanted is { } type ? tensor.to(type) : tensor;
    }

    /// <summary>Files that hold the weights of a folder, in order.</summary>
    public static IReadOnlyList<string> Files(string folder) => [.. Index(folder).Select(pair => pair.File).Distinct()];

    private static IEnumerable<(string Name, string File)> Index(string folder)
    {
        var index = Path.Combine(folder, ModelLayout.Index);
        var whole = Path.Combine(folder, ModelLayout.Weights);
        if (ModelLayout.WeightFiles(name => File.Exists(Path.Combine(folder, name)), () => []) is [_])
        {
            if (!File.Exists(whole))
            {
                throw new UserFault(
                    $"{folder} holds no weights.",
                    found: Directory.Exists(folder)
                        ? string.Join(", ", Directory.EnumerateFiles(folder).Select(Path.GetFileName).Take(12))
                        : "no such folder",
                    next: "put model.safetensors (or its shards and model.safetensors.index.json) there"
                );
            }
            using var file = SafeTensors.Open(whole);
            return [.. file.Tensors.Keys.Select(name => (name, ModelLayout.Weights))];
        }
        try
        {
            return
            [
                .. JsonNode.Parse(UntrustedFile.ReadAllBytes(index, UntrustedFile.Index))!["weight_map"]!
                    .AsObject()
                    .Select(pair => (pair.Key, Shard((string)pair.Value!))),
            ];
        }
        catch (Exception e)
            when (e is JsonException or InvalidOperationException or NullReferenceException or ArgumentException)
        {
            throw new UserFault($"{index} is not a weight index.", found: e.Message, next: "download the file again");
        }

        // A shard is a file of this folder, whatever the index says.
        string Shard(string file) =>
            Path.GetFileName(file) == file
                ? file
                : throw new UserFault($"{index} names a file outside its folder.", found: file);
    }

    private void Account(string folder)
    {
        var problems = new List<Problem>();
        var wanted = spec.Whole.Tensors.ToDictionary(t => t.Name);
        foreach (var tensor in wanted.Values)
        {
            if (!where.TryGetValue(tensor.Name, out var file))
                problems.Add(new(tensor.Name, "missing"));
            else if (!file.Tensors[tensor.Name].Shape.SequenceEqual(tensor.Shape))
                problems.Add(
                    new(
                        tensor.Name,
                        $"has shape [{string.Join(", ", file.Tensors[tensor.Name].Shape)}], config.json says ["
                            + $"{string.Join(", ", tensor.Shape)}]"
                    )
                );
            else if (file.Tensors[tensor.Name].Type is not ("F32" or "F16" or "BF16" or "F64"))
                problems.Add(new(tensor.Name, $"has type {file.Tensors[tensor.Name].Type}, expected F32, F16 or BF16"));
        }
        // A tied head is often saved beside the embedding it equals; older files carry rotary buffers that the config
        // implies.
        foreach (
            var name in where.Keys.Where(name =>
                !wanted.ContainsKey(name)
                && !(spec.TieWordEmbeddings && name == "lm_head.weight")
                && !name.EndsWith(".rotary_emb.inv_freq", StringComparison.Ordinal)
            )
        )
            problems.Add(new(name, "unexpected: config.json has no place for it"));
        if (problems.Count > 0)
        {
            throw new UserFault(
                $"The weights in {folder} are not those of its config.json.",
                found: $"{problems.Count} tensors: "
                    + string.Join("; ", problems.Take(8).Select(p => $"{p.Path} {p.Message}"))
                    + (problems.Count > 8 ? "; …" : ""),
                next: "check that config.json and the safetensors are of the same model"
            )
            {
                Problems = problems,
            };
        }
    }
}
