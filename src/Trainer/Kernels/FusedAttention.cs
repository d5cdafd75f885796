using System.Runtime.InteropServices;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>How tokens of a batch may look at each other beyond "not ahead".</summary>
/// <param name="Window">Tokens a query looks back, itself included; null sees all.</param>
/// <param name="CuSeqlens">(documents + 1) int32 on the device: where each document begins in the flattened batch, and
/// the end; null when each row is one.</param>
/// <param name="MaxSeqlen">Tokens of the longest document.</param>
internal readonly record struct AttentionMask(int? Window, Tensor? CuSeqlens, int MaxSeqlen)
{
    /// <summary>Where the keys of each document begin, where they are more than its queries: the last query is at the
    /// last key. Null where they are as many.</summary>
    public Tensor? CuSeqlensOfKeys { get; init; }

    /// <summary>Keys of the longest document then.</summary>
    public int MaxSeqlenOfKeys { get; init; }
}

/// <summary>Causal attention by the fused kernels that libtorch carries: FlashAttention-2 (Dao 2023, arXiv
/// 2307.08691), or cuDNN's. Key and value heads serve groups of query heads without being copied.
/// </summary>
internal static class FusedAttention
{
    // cuDNN builds a plan for every new shape, which pays for long sequences only.
    private const int CudnnFrom = 1024;

    // The operator's results are both tensors and numbers, which the C entry point cannot give back: asked for in
    // TorchScript, which can.
    private const string Script = """
        def attend(q, k, v):
            r = torch._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, True, False)
            return r[0], r[1], r[6], r[7]

        """;

    private static readonly int capability = Cuda.Capability();
    private static readonly Lazy<jit.CompilationUnit> cudnn = new(() => jit.compile(Script));
    private static bool cudnnServes = capability >= 90;

    /// <summary>The output and the tensors that backward needs.</summary>
    /// <param name="Output">(B, T, H, D).</param>
    /// <param name="LogSumExp">Log of the sums of the softmax, fp32.</param>
    /// <param name="Seed">State of the dropout that is not used; the operators ask for it back.</param>
    /// <param name="Offset">Likewise.</param>
    /// <param name="Cudnn">Whose kernels made it.</param>
    public sealed record AttentionOutput(Tensor Output, Tensor LogSumExp, Tensor Seed, Tensor Offset, bool Cudnn)
        : IDisposable
    {
        /// <summary>The four tensors, moved or detached by the caller.</summary>
        public IReadOnlyList<Tensor> Tensors => [Output, LogSumExp, Seed, Offset];

        public void Dispose()
        {
            foreach (var tensor in Tensors)
                tensor.Dispose();
        }
    }

    /// <summary>Whether the fused kernels take a type, a head's size and this card.</summary>
    public static bool Supports(Tensor q) =>
        q.device_type == DeviceType.CUDA
        && q.dtype is ScalarType.BFloat16 or ScalarType.Float16
        && q.shape[^1] % 8 == 0
        && q.shape[^1] <= 256
        && capability >= 80;

    /// <param name="q">(B, T, H, D).</param>
    /// <param name="k">(B, T, KV, D), KV a divisor of H; (n, KV, D) where the mask says where the keys begin.</param>
    /// <param name="v">As k.</param>
    /// <param name="mask">Windows and documents.</param>
    public static AttentionOutput Forward(Tensor q, Tensor k, Tensor v, AttentionMask mask)
    {
        using var scope = NewDisposeScope();
        var plain = mask.CuSeqlens is null && mask.Window is null && q.shape[1] >= CudnnFrom && q.shape[^1] <= 128;
        var attended = (cudnnServes && plain ? ByCudnn(q, k, v) : null) ?? ByFlash(q, k, v, mask);
        foreach (var tensor in attended.Tensors)
            tensor.MoveToOuterDisposeScope();
        return attended;
    }

    /// <summary>Gradients of q, k and v.</summary>
    /// <param name="gradient">Of Y, (B, T, H, D).</param>
    /// <param name="q">As in forward.</param>
    /// <param name="k">As in forward.</param>
    /// <param name="v">As in forward.</param>
    /// <param name="attended">The result of forward.</param>
    /// <param name="mask">As in forward.</param>
    /// <param name="deterministic">Same bits every time, whatever the length; slower, the more so the longer. cuDNN has
    /// no such mode.</param>
    public static (Tensor Q, Tensor K, Tensor V) Backward(
        Tensor gradient,
        Tensor q,
        Tensor k,
        Tensor v,
        AttentionOutput attended,
        AttentionMask mask,
        bool deterministic
    )
    {
        using var scope = NewDisposeScope();
        return attended.Cudnn && !deterministic
            ? CudnnBackward(gradient, q, k, v, attended)
            : FlashBackward(gradient, q, k, v, attended, mask, deterministic);
    }

    private static (Tensor Q, Tensor K, Tensor V) CudnnBackward(
        Tensor gradient,
        Tensor q,
        Tensor k,
        Tensor v,
        AttentionOutput attended
    )
    {
        long length = q.shape[1];
        var r = Aten.Call(
            "aten::_scaled_dot_product_cudnn_attention_backward",
            "",
            [
                Turned(gradient),
                Turned(q),
                Turned(k),
                Turned(v),
                Turned(attended.Output),
                attended.LogSumExp,
                attended.Seed,
                attended.Offset,
                AtenArg.Undefined,
                AtenArg.Undefined,
                AtenArg.Undefined,
                length,
                length,
                0.0,
                true,
                AtenArg.None,
            ],
            3
        );
        return (
            Turned(r[0]).contiguous().MoveToOuterDisposeScope(),
            Turned(r[1]).contiguous().MoveToOuterDisposeScope(),
            Turned(r[2]).contiguous().MoveToOuterDisposeScope()
        );
    }

    private static (Tensor Q, Tensor K, Tensor V) FlashBackward(
        Tensor gradient,
        Tensor q,
        Tensor k,
        Tensor v,
        AttentionOutput attended,
        AttentionMask mask,
        bool deterministic
    )
    {
        var (sums, seed, offset) = attended.Cudnn
            ? (attended.LogSumExp.squeeze(-1), zeros([2], int64, q.device), zeros([], int64, q.device))
            : (attended.LogSumExp, attended.Seed, attended.Offset);
        var (queries, keys, left) = Of(q, mask);
        using var order = TorchContext.Deterministic(deterministic);
        var back = Aten.Call(
            "aten::_flash_attention_backward",
            "",
            [
                Shaped(gradient, mask),
                Shaped(q, mask),
                Shaped(k, mask),
                Shaped(v, mask),
                Shaped(attended.Output, mask),
                sums,
                queries.Starts is null ? AtenArg.Undefined : queries.Starts,
                keys.Starts is null ? AtenArg.Undefined : keys.Starts,
                queries.Longest,
                keys.Longest,
                0.0,
                true,
                seed,
                offset,
                AtenArg.None,
                AtenArg.Maybe(left),
                AtenArg.Maybe(left is null ? null : 0L),
            ],
            3
        );
        return (
            back[0].view(q.shape).MoveToOuterDisposeScope(),
            back[1].view(k.shape).MoveToOuterDisposeScope(),
            back[2].view(v.shape).MoveToOuterDisposeScope()
        );
    }

    /// <summary>The same by libtorch's general operator, with a mask: for any type, size and device. q, k, v (B, H or
    /// KV, T, D); a mask is true where a query may look.</summary>
    internal static Tensor General(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal)
    {
        return nn.functional.scaled_dot_product_attention(q, Repeat(k), Repeat(v), mask, 0, causal);

        Tensor Repeat(Tensor x)
        {
            var (heads, groups) = (q.shape[1], x.shape[1]);
            return groups == heads
                ? x
                : x.unsqueeze(2)
                    .expand(x.shape[0], groups, heads / groups, x.shape[2], x.shape[3])
                    .reshape(x.shape[0], heads, x.shape[2], x.shape[3]);
        }
    }

    private static AttentionOutput ByFlash(Tensor q, Tensor k, Tensor v, AttentionMask mask)
    {
        var (queries, keys, left) = Of(q, mask);
        var r = Aten.Call(
            "aten::_flash_attention_forward",
            "",
            [
                Shaped(q, mask),
                Shaped(k, mask),
                Shaped(v, mask),
                AtenArg.Maybe(queries.Starts),
                AtenArg.Maybe(keys.Starts),
                queries.Longest,
                keys.Longest,
                0.0,
                true,
                false,
                AtenArg.None,
                AtenArg.Maybe(left),
                AtenArg.Maybe(left is null ? null : 0L),
            ],
            5
        );
        return new(r[0].view(q.shape), r[1], r[2], r[3], false);
    }

    private static AttentionOutput? ByCudnn(Tensor q, Tensor k, Tensor v)
    {
        try
        {
            var (y, sums, seed, offset) = ((Tensor, Tensor, Tensor, Tensor))
                cudnn.Value.invoke<object>("attend", Turned(q), Turned(k), Turned(v));
            return new(Turned(y).contiguous(), sums, seed, offset, true);
        }
        catch (ExternalException e) when (!e.Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase))
        {
            cudnnServes = false; // this build has none, or none for this card
            return null;
        }
    }

    private static Tensor Turned(Tensor x) => x.transpose(1, 2);

    private static ((Tensor? Starts, long Longest) Queries, (Tensor? Starts, long Longest) Keys, long? Left) Of(
        Tensor q,
        AttentionMask mask
    )
    {
        var queries = (mask.CuSeqlens, mask.CuSeqlens is null ? q.shape[1] : mask.MaxSeqlen);
        return (
            queries,
            mask.CuSeqlensOfKeys is { } starts ? (starts, mask.MaxSeqlenOfKeys) : queries,
            mask.Window is { } window ? window - 1 : null
        );
    }

    /// <summary>Documents are kept apart in the flattened batch.</summary>
    private static Tensor Shaped(Tensor x, AttentionMask mask) =>
        mask.CuSeqlens is null ? x : x.reshape(-1, x.shape[^2], x.shape[^1]);
}
