using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Rotary positions (Su et al. 2021, arXiv 2104.09864) in the half-split layout of transformers.</summary>
public static class Rope
{
    /// <summary>Cosines and sines for positions (B or 1, T) → (B or 1, 1, T, rotary dim), computed in fp32, cast to the compute type.</summary>
    public static (Tensor Cos, Tensor Sin) Angles(ModelSpec spec, Tensor positions, int longest, ScalarType type)
    {
        using var _ = NewDisposeScope();
        var (frequencies, scale) = RopeTable.Frequencies(spec, longest);
        var inverse = tensor(Array.ConvertAll(frequencies, f => (float)f), device: positions.device);
        var angles = positions.to(float32).unsqueeze(-1) * inverse;                      // (B, T, R/2)
        var both = cat([angles, angles], -1).unsqueeze(1);                               // (B, 1, T, R)
        var (cos, sin) = (both.cos(), both.sin());
        if (scale != 1)
            (cos, sin) = (cos * scale, sin * scale);
        return (cos.to(type).MoveToOuterDisposeScope(), sin.to(type).MoveToOuterDisposeScope());
    }

    /// <summary>Turns the first R of D dimensions; <paramref name="back"/> turns them the other way, which is the gradient.</summary>
    public static Tensor Turn(Tensor x, Pass pass, bool back = false)                    // (B, H, T, D)
    {
        using var _ = NewDisposeScope();
        using var __ = no_grad();
        var rotary = pass.Cos.shape[^1];
        var part = x.narrow(-1, 0, rotary);
        var half = rotary / 2;
        var turned = cat([part.narrow(-1, half, half).neg(), part.narrow(-1, 0, half)], -1).mul_(pass.Sin);
        var y = back ? part * pass.Cos - turned : part * pass.Cos + turned;
        if (rotary < x.shape[^1])
            y = cat([y, x.narrow(-1, rotary, x.shape[^1] - rotary)], -1);
        return y.MoveToOuterDisposeScope();
    }
}
