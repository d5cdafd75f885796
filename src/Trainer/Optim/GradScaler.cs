using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>Dynamic loss scaling for fp16 (Micikevicius et al. 2018, arXiv 1710.03740): gradients are multiplied by a
/// power of two that lifts them into the type's range, halved when one overflows and doubled after many steps without.
/// Its state belongs into checkpoints.
/// </summary>
internal sealed class GradScaler : IDisposable
{
    private const double Start = 65536,
        Highest = 1 << 24;
    private const int GrowAfter = 2000;

    // scale, steps since it last changed
    private readonly Tensor state = tensor(new[] { Start, 0 }).DetachFromDisposeScope();

    public double Value => state.data<double>()[0];

    /// <summary>fp64 (2), on the host.</summary>
    public Tensor State => state;

    /// <summary>A step had finite gradients: the scale doubles after enough of them.</summary>
    public void Grow()
    {
        var (value, steps) = (Value, state.data<double>()[1] + 1);
        (state.data<double>()[0], state.data<double>()[1]) =
            steps >= GrowAfter && value < Highest ? (value * 2, 0) : (value, steps);
    }

    /// <summary>A gradient overflowed: halves the scale; false when the scale is at its lowest.</summary>
    public bool Backoff()
    {
        if (Value <= 1)
            return false;
        (state.data<double>()[0], state.data<double>()[1]) = (Value / 2, 0);
        return true;
    }

    public void Dispose() => state.Dispose();
}
