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

    public Out forward(Tensor x, Pass pass)                                  // (B, T, C) -> (B, T, C)
    {
        var (b, t) = (x.shape[0], x.shape[1]);
        var projected = Array.ConvertAll(projections, projection => projection.forward(x, pass));
        long[] widths = [heads * dim, groups * dim, groups * dim];
        var parts = projected.Length == 3
            ? Array.ConvertAll(projected, p => p.Value)
            : projected[0].Value.split(widths, -1);
        var q = Head(parts[0], heads);                                       // (B, H, T, D)
        var k = Head(parts[1], groups);
        var v = Head(parts[2], groups);

        var qNorm = q_norm?.forward(q, pass);
        var kNorm = k_norm?.forward(k, pass);
        q = Rope.Turn(qNorm?.Value ?? q, pass);
        k = Rope.Turn(kNorm?.Value ?? k, pass);
        if (pass.Cache is { } cache)
            (k, v) = cache.Append(layer, k, v);

        var (mask, causal) = pass.MaskFor(window);
        var (mixed, mixedBack) = Local.Run(pass.Learns, [q, k, v], qkv => nn.functional.scaled_dot_product_attention(
            qkv[0], Repeat(qkv[1]), Repeat(qkv[2]), mask, 0, causal));       // (B, H, T, D)
        var output = o_proj.forward(mixed.transpose(1, 2).reshape(b, t, heads * dim), pass);
        if (!pass.Learns)
            return output;

        return new(output.Value, gradient =>
        {
            var g = mixedBack!(Head(output.Back!(gradient), heads));
            var (dq, dk, dv) = (Rope.Turn(g[0], pass, back: true), Rope.Turn(g[1], pass, back: true), g[2]);
            dq = Flat(qNorm?.Back!(dq) ?? dq);
            dk = Flat(kNorm?.Back!(dk) ?? dk);
            Tensor[] grads = [dq, dk, Flat(dv)];
            if (projected.Length == 1)
                return projected[0].Back!(cat(grads, -1));
            var dx = projected[0].Back!(grads[0]);
            dx.add_(projected[1].Back!(grads[1]));
            return dx.add_(projected[2].Back!(grads[2]));
        });

        Tensor Head(Tensor y, int count) => y.view(b, t, count, dim).transpose(1, 2);
        Tensor Flat(Tensor y) => y.transpose(1, 2).reshape(b, t, -1);
    }

    /// <summary>Each key and value head serves heads / groups query heads: (B, KV, K, D) → (B, H, K, D).</summary>
    private Tensor Repeat(Tensor x)
    {
        if (groups == heads)
            return x;
        var (b, k) = (x.shape[0], x.shape[2]);
        return x.unsqueeze(2).expand(b, groups, heads / groups, k, dim).reshape(b, heads, k, dim);
    }
}
