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

    public Out forward(Tensor x, Pass pass, Wanted wanted = Wanted.All)      // (N, C) -> (N, C)
    {
        using var scope = NewDisposeScope();
        var (projected, projectedBack) = Together.Of(projections).forward(x, pass, Wanted.All);
        var parts = projected.Length == 3 ? Array.ConvertAll(projected, p => p.Value)
            : projected[0].Value.split([heads * dim, groups * dim, groups * dim], -1);
        var (q, k, v) = (Heads(parts[0], heads), Heads(parts[1], groups), Heads(parts[2], groups));   // (B, T, H, D)

        var qNorm = q_norm?.forward(q, pass);
        var kNorm = k_norm?.forward(k, pass);
        (q, k) = (qNorm?.Value ?? q, kNorm?.Value ?? k);
        Kernels.Rope.Turn(q, k, pass.Cos, pass.Sin);
        var (mixed, mixedBack) = Mix(q, k, v, pass, scope);                  // (B, T, H, D)
        var output = o_proj.forward(mixed.view(-1, heads * dim), pass, wanted);
        output.Value?.MoveToOuterDisposeScope();
        if (!pass.Learns)
            return output;
        scope.MoveAllOut();

        return new(output.Value!, (gradient, onto) =>
        {
            using var scope = NewDisposeScope();
            var (dq, dk, dv) = mixedBack!(Heads(output.Back!(gradient), heads));
            Kernels.Rope.Turn(dq, dk, pass.Cos, pass.Sin, back: true);
            Tensor[] grads = [Joined(qNorm?.Back!(dq) ?? dq), Joined(kNorm?.Back!(dk) ?? dk), Joined(dv)];
            if (projected.Length == 1)
                grads = [cat(grads, -1)];
            var dx = projectedBack!(grads, onto);
            return onto ?? dx.MoveToOuterDisposeScope();
        });

        Tensor Heads(Tensor y, int count) => y.view(-1, pass.Length, count, dim);
        static Tensor Joined(Tensor y) => y.reshape(y.shape[0] * y.shape[1], -1);
    }

    /// <summary>Attention itself, by the fused kernels where they serve, else by the general operator with a mask.</summary>
    private (Tensor Value, Func<Tensor, (Tensor Q, Tensor K, Tensor V)>? Back) Mix(Tensor q, Tensor k, Tensor v, Pass pass, DisposeScope owner)
    {
        if (pass.Cache is null && Kernels.Attention.Serves(q))
        {
            var sight = pass.SightOf(window);
            var mixed = pass.RememberedMixed(layer, owner) ?? Kernels.Attention.Forward(q, k, v, sight);
            pass.Remember(layer, mixed);
            return (mixed.Y, !pass.Learns ? null : gradient => Kernels.Attention.Backward(gradient, q, k, v, mixed, sight, pass.Deterministic));
        }

        using var scope = NewDisposeScope();
        var (keys, values) = (k.transpose(1, 2), v.transpose(1, 2));         // (B, KV, T, D)
        if (pass.Cache is { } cache)
            (keys, values) = cache.Append(layer, keys.contiguous(), values.contiguous());
        var (mask, causal) = pass.MaskFor(window);
        var (y, back) = Local.Run(pass.Learns, [q.transpose(1, 2), keys, values], qkv => Kernels.Attention.General(qkv[0], qkv[1], qkv[2], mask, causal));
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
