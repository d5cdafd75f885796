using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>Rotary positions (Su et al. 2021, arXiv 2104.09864) in the half-split layout of transformers, applied in
/// place.</summary>
internal static class FusedRope
{
    private static readonly Kernel kernel = new("Rope.cu");

    /// <summary>Turns the first R of D dimensions of every head; <paramref name="inverse"/> turns them the other way,
    /// which is the gradient.</summary>
    /// <param name="q">(B, T, H, D); heads and dimensions contiguous, tokens at any stride.</param>
    /// <param name="k">(B, T, KV, D), likewise.</param>
    /// <param name="cos">(B or 1, T, R), both halves the same.</param>
    /// <param name="sin">As cos.</param>
    /// <param name="inverse">The other way.</param>
    public static void Apply(Tensor q, Tensor k, Tensor cos, Tensor sin, bool inverse = false)
    {
        if (!Kernel.Supports(q))
        {
            Reference(q, cos, sin, inverse);
            Reference(k, cos, sin, inverse);
            return;
        }
        var (tokens, heads, groups, dim, rotary) = (
            q.shape[0] * q.shape[1],
            (int)q.shape[2],
            (int)k.shape[2],
            (int)q.shape[3],
            (int)cos.shape[^1]
        );
        var packed =
            Kernel.Packed(rotary / 2, q, k, cos, sin)
            & Kernel.Packed(dim, q)
            & Kernel.Packed(q.stride(1), q)
            & Kernel.Packed(k.stride(1), k);
        var pairs = packed == 1 ? rotary / 2 * q.element_size() / 16 : rotary / 2;
        kernel.Launch(
            "turn",
            q.dtype,
            ((tokens * (heads + groups) * pairs + 255) / 256, 1),
            (256, 1),
            [
                q,
                k,
                cos,
                sin,
                tokens,
                cos.shape[0] * cos.shape[1],
                heads,
                groups,
                dim,
                rotary,
                q.stride(1),
                k.stride(1),
                inverse ? -1f : 1f,
                packed,
            ]
        );
    }

    internal static void Reference(Tensor x, Tensor cos, Tensor sin, bool inverse)
    {
        using var scope = NewDisposeScope();
        var rotary = cos.shape[^1];
        var half = rotary / 2;
        var part = x.narrow(-1, 0, rotary);
        var turned = cat([part.narrow(-1, half, half).neg(), part.narrow(-1, 0, half)], -1).mul_(sin.unsqueeze(2));
        var straight = part * cos.unsqueeze(2);
        part.copy_(inverse ? straight.sub_(turned) : straight.add_(turned));
    }
}
