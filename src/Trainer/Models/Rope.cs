using Memopt.Trainer.Autograd;
using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>The angles of rotary positions (Su et al. 2021, arXiv 2104.09864).</summary>
internal static class Rope
{
    /// <summary>Cosines and sines for positions (B or 1, T) → (B or 1, T, rotary dim), computed in fp32, cast to the
    /// compute type.</summary>
    public static (Tensor Cos, Tensor Sin) Angles(ModelSpec spec, Tensor positions, int longest, ScalarType type)
    {
        using var _ = NewDisposeScope();
        var (frequencies, scale) = RopeTable.Frequencies(spec, longest);
        var inverse = Scopes.Upload(Array.ConvertAll(frequencies, f => (float)f), positions.device);
        var angles = positions.to(float32).unsqueeze(-1) * inverse; // (B, T, R/2)
        var both = cat([angles, angles], -1); // (B, T, R)
        var (cos, sin) = (both.cos(), both.sin());
        if (scale != 1)
            (cos, sin) = (cos * scale, sin * scale);
        return (cos.to(type).MoveToOuterDisposeScope(), sin.to(type).MoveToOuterDisposeScope());
    }
}
