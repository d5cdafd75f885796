using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Plan.Blocks;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Grouped-query causal attention with rotary positions; fused (Phi-3) or separate projections, optional norms
/// on q and k (Qwen3).</summary>
/// <param name="spec">Its shape; that of this rank's heads where tensor parallel ranks share it.</param>
/// <param name="layer">Index of the layer.</param>
/// <param name="tensor">These ranks, or null.</param>
internal sealed class Attention(AttentionSpec spec, int layer, TensorParallel? tensor = null) : Block
{
    public AttentionSpec Spec => spec;

    private readonly int heads = spec.Heads,
        groups = spec.KvHeads,
        dim = spec.HeadDim;
    private readonly int? window = spec.Window;

    public required Projections projections { get; init; } // q_proj, k_proj, v_proj, or qkv_proj alone
    public required Linear o_proj { get; set; }
    public RmsNorm? q_norm { get; init; }
    public RmsNorm? k_norm { get; init; }

    protected override (Tensor? Output, Pullback? Backward) Run(Tensor x, ForwardContext context, bool output)
    {
        using var scope = NewDisposeScope();
        var qkv = projections.Group.Begin(x, context);
        var parts = qkv.Outputs();
        if (parts.Length == 1)
            parts = parts[0].split([heads * dim, groups * dim, groups * dim], -1);
        var (q, k, v) = (Heads(parts[0], heads), Heads(parts[1], groups), Heads(parts[2], groups)); // (B, T, H, D)

        var qNorm = q_norm?.forward(q, context);
        var kNorm = k_norm?.forward(k, context);
        (q, k) = (qNorm?.Output ?? q, kNorm?.Output ?? k);
        Kernels.FusedRope.Apply(q, k, context.Cos, context.Sin);
        var fused = context.Cache is null && Kernels.FusedAttention.Supports(q);
        var (keys, values) = context.ContextParallel?.AllGather(k, v, fused) ?? (k, v);
        var (attended, attendBackward) = Attend(q, keys, values, fused, context, scope); // (B, T, H, D)
        var o = o_proj.Begin(attended.view(-1, heads * dim), context);
        var y = output ? o.Output().MoveToOuterDisposeScope() : null;
        if (y is not null)
            tensor?.Complete(y, o_proj);
        if (!context.NeedsGradient)
            return (y, null);
        scope.MoveAllOut();
        return (y, Backward);

        Tensor Backward(Tensor gradient, Tensor? accumulateInto)
        {
            using var scope = NewDisposeScope();
            var (dq, dk, dv) = attendBackward!(Heads(o.Backward(gradient), heads));
            (dk, dv) = context.ContextParallel?.ReduceScatter(dk, dv, fused) ?? (dk, dv);
            Kernels.FusedRope.Apply(dq, dk, context.Cos, context.Sin, inverse: true);
            Tensor[] grads = [Joined(qNorm?.Backward!(dq) ?? dq), Joined(kNorm?.Backward!(dk) ?? dk), Joined(dv)];
            if (projections.Count == 1)
                grads = [cat(grads, -1)];
            var dx = qkv.Backward(grads, accumulateInto);
            tensor?.AllReduce(dx);
            return accumulateInto ?? dx.MoveToOuterDisposeScope();
        }

        Tensor Heads(Tensor y, int count) => y.view(-1, context.Length, count, dim);
        static Tensor Joined(Tensor y) => y.reshape(y.shape[0] * y.shape[1], -1);
    }

    /// <summary>Attention itself, by the fused kernels where they serve, else by the general operator with a
    /// mask.</summary>
    private (Tensor Output, Func<Tensor, (Tensor Q, Tensor K, Tensor V)>? Backward) Attend(
        Tensor q,
        Tensor k,
        Tensor v,
        bool fused,
        ForwardContext context,
        DisposeScope owner
    )
    {
        if (fused)
        {
            var mask = context.AttentionMaskFor(window);
            var attended = context.TakeSavedAttention(layer, owner) ?? Kernels.FusedAttention.Forward(q, k, v, mask);
            context.SaveForBackward(layer, attended);
            return (
                attended.Output,
                !context.NeedsGradient
                    ? null
                    : gradient =>
                        Kernels.FusedAttention.Backward(gradient, q, k, v, attended, mask, context.Deterministic)
            );
        }

        using var scope = NewDisposeScope();
        Tensor Rows(Tensor x) => x.view(q.shape[0], -1, groups, dim).transpose(1, 2);
        var (keys, values) = (Rows(k), Rows(v)); // (B, KV, T, D)
        if (context.Cache is { } cache)
            (keys, values) = cache.Append(layer, keys.contiguous(), values.contiguous());
        var (dense, causal) = context.MaskFor(window);
        var (y, backward) = LocalAutograd.Run(
            context.NeedsGradient,
            [q.transpose(1, 2), keys, values],
            qkv => Kernels.FusedAttention.General(qkv[0], qkv[1], qkv[2], dense, causal)
        );
        var value = y.transpose(1, 2).contiguous();
        scope.MoveAllOut();
        return (
            value,
            backward is null
                ? null
                : gradient =>
                {
                    using var scope = NewDisposeScope();
                    var g = backward(gradient.transpose(1, 2));
                    Tensor Turned(Tensor x) => x.transpose(1, 2).contiguous().MoveToOuterDisposeScope();
                    return (Turned(g[0]), Turned(g[1]), Turned(g[2]));
                }
        );
    }
}
