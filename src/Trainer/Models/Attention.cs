using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Grouped-query causal attention with rotary positions; fused (Phi-3) or separate projections, optional norms on q and k (Qwen3).</summary>
public sealed class Attention(ModelSpec spec, int layer)
{
    private readonly int heads = spec.Heads, groups = spec.KvHeads, dim = spec.HeadDim;
    private readonly int? window = spec.SlidingWindow[layer];

    public Linear[] projections { get; init; } = [];                         // q_proj, k_proj, v_proj, or qkv_proj alone
    public required Linear o_proj { get; set; }
    public RmsNorm? q_norm { get; init; }
    public RmsNorm? k_norm { get; init; }

    public ForwardResult forward(Tensor x, ForwardContext context, LinearMode mode = LinearMode.Full)      // (N, C) -> (N, C)
    {
        using var scope = NewDisposeScope();
        var (projected, projectedBack) = LinearGroup.Of(projections).forward(x, context, LinearMode.Full);
        var parts = projected.Length == 3 ? Array.ConvertAll(projected, p => p.Output)
            : projected[0].Output.split([heads * dim, groups * dim, groups * dim], -1);
        var (q, k, v) = (Heads(parts[0], heads), Heads(parts[1], groups), Heads(parts[2], groups));   // (B, T, H, D)

        var qNorm = q_norm?.forward(q, context);
        var kNorm = k_norm?.forward(k, context);
        (q, k) = (qNorm?.Output ?? q, kNorm?.Output ?? k);
        Kernels.FusedRope.Apply(q, k, context.Cos, context.Sin);
        var (mixed, mixedBack) = Mix(q, k, v, context, scope);                  // (B, T, H, D)
        var output = o_proj.forward(mixed.view(-1, heads * dim), context, mode);
        output.Output?.MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return output;
        scope.MoveAllOut();

        return new(output.Output!, (gradient, accumulateInto) =>
        {
            using var scope = NewDisposeScope();
            var (dq, dk, dv) = mixedBack!(Heads(output.Backward!(gradient), heads));
            Kernels.FusedRope.Apply(dq, dk, context.Cos, context.Sin, inverse: true);
            Tensor[] grads = [Joined(qNorm?.Backward!(dq) ?? dq), Joined(kNorm?.Backward!(dk) ?? dk), Joined(dv)];
            if (projected.Length == 1)
                grads = [cat(grads, -1)];
            var dx = projectedBack!(grads, accumulateInto);
            return accumulateInto ?? dx.MoveToOuterDisposeScope();
        });

        Tensor Heads(Tensor y, int count) => y.view(-1, context.Length, count, dim);
        static Tensor Joined(Tensor y) => y.reshape(y.shape[0] * y.shape[1], -1);
    }

    /// <summary>Attention itself, by the fused kernels where they serve, else by the general operator with a mask.</summary>
    private (Tensor Value, Func<Tensor, (Tensor Q, Tensor K, Tensor V)>? Back) Mix(Tensor q, Tensor k, Tensor v, ForwardContext context, DisposeScope owner)
    {
        if (context.Cache is null && Kernels.FusedAttention.Supports(q))
        {
            var sight = context.AttentionMaskFor(window);
            var mixed = context.TakeSavedAttention(layer, owner) ?? Kernels.FusedAttention.Forward(q, k, v, sight);
            context.SaveForBackward(layer, mixed);
            return (mixed.Output, !context.NeedsGradient ? null : gradient => Kernels.FusedAttention.Backward(gradient, q, k, v, mixed, sight, context.Deterministic));
        }

        using var scope = NewDisposeScope();
        var (keys, values) = (k.transpose(1, 2), v.transpose(1, 2));         // (B, KV, T, D)
        if (context.Cache is { } cache)
            (keys, values) = cache.Append(layer, keys.contiguous(), values.contiguous());
        var (mask, causal) = context.MaskFor(window);
        var (y, back) = LocalAutograd.Run(context.NeedsGradient, [q.transpose(1, 2), keys, values], qkv => Kernels.FusedAttention.General(qkv[0], qkv[1], qkv[2], mask, causal));
        var value = y.transpose(1, 2).contiguous();
        scope.MoveAllOut();
        return (value, back is null ? null : gradient =>
        {
            using var scope = NewDisposeScope();
            var g = back(gradient.transpose(1, 2));
            Tensor Turned(Tensor x) => x.transpose(1, 2).contiguous().MoveToOuterDisposeScope();
            return (Turned(g[0]), Turned(g[1]), Turned(g[2]));
        }
        );
    }
}
