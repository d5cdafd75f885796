using Memopt.Trainer.Data;
using Memopt.Trainer.Kernels;
using TorchSharp;
using static Memopt.Trainer.Kernels.Attention;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>
/// From the gradient of an output to that of the input, added to <paramref name="onto"/> where given, which it then returns. Adds the
/// gradients of its trained weights on the way. Leaves <paramref name="gradient"/> as it is unless the part says otherwise. Called at most once.
/// </summary>
public delegate Tensor Pullback(Tensor gradient, Tensor? onto = null);

/// <summary>
/// What a part returns: its output and, when the pass learns, the way back. Composing ways back by hand instead of through a
/// graph makes every kept tensor visible: a linear keeps its input, never an expanded 4-bit weight, and recomputation is one line.
/// </summary>
/// <param name="Value">The output.</param>
/// <param name="Back">The way back.</param>
/// <param name="Learn">Of a linear that was told that its input is given again: takes it, after <paramref name="Back"/>.</param>
/// <param name="Rest">Of a linear that was told to leave its low-rank part to the caller: what is to be added to the value.</param>
/// <param name="BackRest">Likewise, after <paramref name="Back"/>: what is to be added to the gradient that it gave.</param>
public readonly record struct Out(Tensor Value, Pullback? Back, Action<Tensor>? Learn = null, LowRank? Rest = null, Func<LowRank>? BackRest = null)
{
    public void Deconstruct(out Tensor value, out Pullback? back) => (value, back) = (Value, Back);
}

/// <summary>One batch on its way through the decoder: positions, masks, and whether the way back is wanted.</summary>
public sealed class Pass : IDisposable
{
    private readonly Dictionary<int, Tensor> windows = [];
    private readonly Dictionary<int, (IKept[] Tensors, bool Cudnn)> mixed = [];
    private readonly Dictionary<int, IKept> residuals = [];
    private readonly List<IKept> held = [];
    private readonly Documents? documents;
    private readonly Tensor? starts;
    private readonly int past;
    private readonly Device device;
    private Tensor? room;

    /// <param name="cos">(B or 1, T, R) rotary cosines in the compute type; freed with the pass.</param>
    /// <param name="sin">Sines, likewise.</param>
    /// <param name="length">Tokens in this pass, T.</param>
    /// <param name="documents">What is packed into the rows; null when each is one.</param>
    /// <param name="cache">Keys and values of earlier tokens, when generating.</param>
    public Pass(Tensor cos, Tensor sin, int length, Documents? documents = null, KvCache? cache = null)
    {
        (Cos, Sin, Cache) = (cos.DetachFromDisposeScope(), sin.DetachFromDisposeScope(), cache);
        (Length, this.documents, past, device) = (length, documents, cache?.Length ?? 0, cos.device);
        starts = documents is null ? null : Scopes.Upload(documents.Starts, device).DetachFromDisposeScope();
    }

    /// <summary>Tokens of a row, T: within the layers a batch is (N, …) with N = B · T.</summary>
    public int Length { get; }

    public Tensor Cos { get; }

    public Tensor Sin { get; }

    public KvCache? Cache { get; }

    /// <summary>Whether ways back are wanted.</summary>
    public bool Learns { get; set; }

    /// <summary>Whether the same bits are wanted of every run.</summary>
    public bool Deterministic { get; init; } = true;

    /// <summary>Seed of this micro-batch's dropout, null outside training; each module adds its own number, so a second run draws the same.</summary>
    public long? Seed { get; init; }

    /// <summary>What the layers keep on this way out for a second run of the same.</summary>
    public Kept Keeps { get; set; }

    /// <summary>Who holds it meanwhile.</summary>
    public IKeeper Keeper { get; set; } = InPlace.Keeper;

    /// <summary>Hands a tensor to the keeper, for a layer's second run or until the pass ends.</summary>
    public IKept Hold(Tensor tensor, int layer)
    {
        var kept = Keeper.Keep(tensor, layer);
        held.Add(kept);
        return kept;
    }

    /// <summary>
    /// Room for what each layer needs for a moment on the way out, the same for all. Where layers keep the rest until the way back, room of
    /// each one's own would be cut up by what the next keeps.
    /// </summary>
    public Tensor Room(long[] shape, ScalarType type)
    {
        if (room is null || room.numel() < shape.Aggregate(1L, (a, b) => a * b) || room.dtype != type)
        {
            room?.Dispose();
            room = empty(shape, type, device).DetachFromDisposeScope();
        }
        return room.view(-1).narrow(0, 0, shape.Aggregate(1L, (a, b) => a * b)).view(shape);
    }

    /// <summary>The way out is over.</summary>
    public void FreeRoom()
    {
        room?.Dispose();
        room = null;
    }

    /// <summary>What attention gave in a layer's first run, once; from then on the scope's.</summary>
    public Mixed? RememberedMixed(int layer, DisposeScope owner) => mixed.Remove(layer, out var kept)
        ? new(kept.Tensors[0].Take(owner), kept.Tensors[1].Take(owner), kept.Tensors[2].Take(owner), kept.Tensors[3].Take(owner), kept.Cudnn) : null;

    /// <summary>Keeps what attention gave, if that is wanted, until the second run.</summary>
    public void Remember(int layer, Mixed made)
    {
        if (Keeps.HasFlag(Kept.Attention))
            mixed[layer] = ([.. new[] { made.Y.alias(), made.Sums, made.Seed, made.Offset }.Select(tensor => Hold(tensor, layer))], made.Cudnn);   // the layer frees its own
    }

    /// <summary>The sum between attention and feed-forward of a layer's first run, once; from then on the scope's.</summary>
    public Tensor? RememberedResidual(int layer, DisposeScope owner) => residuals.Remove(layer, out var kept) ? kept.Take(owner) : null;

    /// <summary>Keeps that sum, if that is wanted, until the second run.</summary>
    public void Remember(int layer, Tensor residual)
    {
        if (Keeps.HasFlag(Kept.Residual))
            residuals[layer] = Hold(residual.alias(), layer);
    }

    /// <summary>What the fused kernels are told of a layer.</summary>
    public Sight SightOf(int? window) => new(window is { } w && w < Length ? w : null, starts, documents?.Longest ?? Length);

    /// <summary>Mask of a layer: null with Causal when plain causal attention does. True where a query may look.</summary>
    public (Tensor? Mask, bool Causal) MaskFor(int? window)
    {
        var keys = past + Length;
        var narrow = window is { } w && w < keys;
        if (!narrow && documents is null && (past == 0 || Length == 1))
            return (null, Length > 1);
        var key = narrow ? window!.Value : 0;
        if (!windows.TryGetValue(key, out var mask))
        {
            using var scope = NewDisposeScope();
            var query = arange(past, keys, device: device).unsqueeze(1);       // (T, 1)
            var seen = arange(0, keys, device: device).unsqueeze(0);           // (1, K)
            mask = seen.le(query);
            if (narrow)
                mask = mask.logical_and(seen.gt(query - window!.Value));
            if (documents is not null)
            {
                var number = searchsorted(starts!, arange(documents.Starts[^1], int32, device), right: true).reshape(-1, Length);   // (B, T)
                mask = mask.logical_and(number.unsqueeze(2).eq(number.unsqueeze(1))).unsqueeze(1);   // (B, 1, T, T)
            }
            windows[key] = mask = mask.DetachFromDisposeScope();
        }
        return (mask, false);
    }

    public void Dispose()
    {
        foreach (var mask in windows.Values)
            mask.Dispose();
        foreach (var kept in held)
            kept.Dispose();
        room?.Dispose();
        Cos.Dispose();
        Sin.Dispose();
        starts?.Dispose();
    }
}

/// <summary>Keys and values of the tokens so far, one pair a layer, (B, KV, T, D).</summary>
public sealed class KvCache(int layers) : IDisposable
{
    private readonly (Tensor Keys, Tensor Values)?[] past = new (Tensor, Tensor)?[layers];

    /// <summary>Tokens seen.</summary>
    public int Length { get; private set; }

    /// <summary>Adds this pass's keys and values and returns all so far.</summary>
    public (Tensor Keys, Tensor Values) Append(int layer, Tensor keys, Tensor values)
    {
        if (past[layer] is { } old)
        {
            (keys, values) = (cat([old.Keys, keys], 2), cat([old.Values, values], 2));
            old.Keys.Dispose();
            old.Values.Dispose();
        }
        past[layer] = (keys.DetachFromDisposeScope(), values.DetachFromDisposeScope());
        return (keys, values);
    }

    /// <summary>Called once a pass, after its last layer.</summary>
    public void Advance(int tokens) => Length += tokens;

    public void Dispose()
    {
        foreach (var pair in past)
        {
            pair?.Keys.Dispose();
            pair?.Values.Dispose();
        }
    }
}
