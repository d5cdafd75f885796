using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Kernels;
using TorchSharp;
using static Memopt.Trainer.Kernels.FusedAttention;
using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>Backward of one part, its vector-Jacobian product: from the gradient of the output to that of the input.
/// Accumulates into
/// <paramref name="accumulateInto"/> where given, and returns it. Also accumulates the gradients of the trained
/// weights. Does not change <paramref name="gradient"/> unless the part says otherwise. Called at most once.
/// </summary>
internal delegate Tensor Pullback(Tensor gradient, Tensor? accumulateInto = null);

/// <summary>State of one forward pass of a batch: positions, masks, saved tensors, and whether gradients are needed.
/// PyTorch's <c>ctx</c>.</summary>
internal sealed class ForwardContext : IDisposable
{
    private readonly Dictionary<int, Tensor> windows = [];
    private readonly Dictionary<int, (ISavedTensor[] Tensors, bool Cudnn)> savedAttention = [];
    private readonly Dictionary<int, ISavedTensor> savedResiduals = [];
    private readonly List<ISavedTensor> saved = [];
    private readonly Documents? documents;
    private readonly Tensor? starts;
    private readonly int past;
    private readonly Device device;
    private Tensor? workspace;

    /// <param name="cos">(B or 1, T, R) rotary cosines in the compute type; freed with the pass.</param>
    /// <param name="sin">Sines, likewise.</param>
    /// <param name="length">Tokens in this pass, T.</param>
    /// <param name="documents">What is packed into the rows; null when each is one.</param>
    /// <param name="cache">Keys and values of the previous tokens, when generating.</param>
    public ForwardContext(Tensor cos, Tensor sin, int length, Documents? documents = null, KvCache? cache = null)
    {
        (Cos, Sin, Cache) = (cos.DetachFromDisposeScope(), sin.DetachFromDisposeScope(), cache);
        (Length, this.documents, past, device) = (length, documents, cache?.Length ?? 0, cos.device);
        starts = documents is null ? null : Scopes.Upload(documents.CuSeqlens, device).DetachFromDisposeScope();
    }

    /// <summary>Tokens of a row, T: within the layers a batch is (N, …) with N = B · T.</summary>
    public int Length { get; }

    public Tensor Cos { get; }

    public Tensor Sin { get; }

    public KvCache? Cache { get; }

    /// <summary>Where context parallel ranks share the rows: this rank's tokens. Null where rows are whole. Freed with
    /// the pass.</summary>
    public ContextPass? ContextParallel { get; init; }

    /// <summary>Whether forwards return a backward.</summary>
    public bool NeedsGradient { get; set; }

    /// <summary>Whether the same bits are wanted of every run.</summary>
    public bool Deterministic { get; init; } = true;

    /// <summary>Whether adapters are left out, so that the model is the frozen base: the reference model of preference
    /// losses (PEFT's disable_adapter).</summary>
    public bool AdaptersDisabled { get; set; }

    /// <summary>Seed of this micro-batch's dropout, null outside training; each module adds its own number, so a second
    /// run draws the same.</summary>
    public long? Seed { get; init; }

    /// <summary>The tensors that layers save in this forward beside their inputs, for activation
    /// checkpointing.</summary>
    public SavedForBackward Saves { get; set; }

    /// <summary>Holds the saved tensors until backward.</summary>
    public ISavedTensors SavedTensors { get; set; } = InPlaceTensors.Instance;

    /// <summary>Saves a tensor until a layer's recomputation or until this context is disposed.</summary>
    public ISavedTensor Save(Tensor tensor, int layer)
    {
        var savedTensor = SavedTensors.Pack(tensor, layer);
        saved.Add(savedTensor);
        return savedTensor;
    }

    /// <summary>Memory for tensors that a layer needs during its forward only, shared by all layers. Memory of each
    /// layer's own would be fragmented by the tensors that the next layer saves.
    /// </summary>
    public Tensor Workspace(long[] shape, ScalarType type)
    {
        if (workspace is null || workspace.numel() < shape.Aggregate(1L, (a, b) => a * b) || workspace.dtype != type)
        {
            workspace?.Dispose();
            workspace = empty(shape, type, device).DetachFromDisposeScope();
        }
        return workspace.view(-1).narrow(0, 0, shape.Aggregate(1L, (a, b) => a * b)).view(shape);
    }

    /// <summary>Frees the workspace, once forward is over.</summary>
    public void ReleaseWorkspace()
    {
        workspace?.Dispose();
        workspace = null;
    }

    /// <summary>Attention's saved output of a layer's first run, once; the scope owns it from then on.</summary>
    public AttentionOutput? TakeSavedAttention(int layer, DisposeScope owner) =>
        savedAttention.Remove(layer, out var kept)
            ? new(
                kept.Tensors[0].Unpack(owner),
                kept.Tensors[1].Unpack(owner),
                kept.Tensors[2].Unpack(owner),
                kept.Tensors[3].Unpack(owner),
                kept.Cudnn
            )
            : null;

    /// <summary>Saves attention's output until the second run, where <see cref="Saves"/> says so.</summary>
    public void SaveForBackward(int layer, AttentionOutput made)
    {
        if (Saves.HasFlag(SavedForBackward.Attention))
            savedAttention[layer] = (
                [
                    .. new[] { made.Output.alias(), made.LogSumExp, made.Seed, made.Offset }.Select(tensor =>
                        Save(tensor, layer)
                    ),
                ],
                made.Cudnn
            ); // the layer frees its own
    }

    /// <summary>The saved sum between attention and MLP of a layer's first run, once; the scope owns it from then
    /// on.</summary>
    public Tensor? TakeSavedResidual(int layer, DisposeScope owner) =>
        savedResiduals.Remove(layer, out var savedTensor) ? savedTensor.Unpack(owner) : null;

    /// <summary>Saves the sum until the second run, where <see cref="Saves"/> says so.</summary>
    public void SaveForBackward(int layer, Tensor residual)
    {
        if (Saves.HasFlag(SavedForBackward.Residual))
            savedResiduals[layer] = Save(residual.alias(), layer);
    }

    /// <summary>The mask of a layer as the fused kernels take it.</summary>
    public AttentionMask AttentionMaskFor(int? window) =>
        ContextParallel?.AttentionMaskFor(window)
        ?? new(window is { } w && w < Length ? w : null, starts, documents?.MaxSeqlen ?? Length);

    /// <summary>The mask of a layer as a tensor, true where a query attends; null where plain causal attention is
    /// enough. All layers share it.</summary>
    public (Tensor? Mask, bool Causal) MaskFor(int? window)
    {
        var keys = ContextParallel?.Slice.PaddedLength ?? past + Length;
        var narrow = window is { } w && w < keys;
        if (!narrow && documents is null && ContextParallel is null && (past == 0 || Length == 1))
            return (null, Length > 1);
        var key = narrow ? window!.Value : 0;
        if (!windows.TryGetValue(key, out var mask))
        {
            mask =
                ContextParallel?.MaskFor(narrow ? window : null, Cos.dtype) ?? WholeMask(keys, narrow ? window : null);
            windows[key] = mask.DetachFromDisposeScope();
        }
        return (mask, false);
    }

    /// <summary>(T, K), or (B, 1, T, T) where rows are packed.</summary>
    private Tensor WholeMask(int keys, int? window)
    {
        using var scope = NewDisposeScope();
        var query = arange(past, keys, device: device).unsqueeze(1); // (T, 1)
        var seen = arange(0, keys, device: device).unsqueeze(0); // (1, K)
        var mask = seen.le(query);
        if (window is { } w)
            mask = mask.logical_and(seen.gt(query - w));
        if (documents is not null)
        {
            var number = searchsorted(starts!, arange(documents.CuSeqlens[^1], int32, device), right: true)
                .reshape(-1, Length); // (B, T)
            mask = mask.logical_and(number.unsqueeze(2).eq(number.unsqueeze(1))).unsqueeze(1); // (B, 1, T, T)
        }
        return mask.MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        foreach (var mask in windows.Values)
            mask.Dispose();
        foreach (var savedTensor in saved)
            savedTensor.Dispose();
        workspace?.Dispose();
        Cos.Dispose();
        Sin.Dispose();
        ContextParallel?.Dispose();
        starts?.Dispose();
    }
}
