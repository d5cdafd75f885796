using Memopt.Trainer.Autograd;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>A part of the decoder from (N, C) to (N, C), which can leave its last product out: backward does not need
/// it.</summary>
internal abstract class Block
{
    /// <summary>(N, C) → (N, C).</summary>
    public ForwardResult forward(Tensor x, ForwardContext context)
    {
        var (y, backward) = Run(x, context, output: true);
        return new(y!, backward);
    }

    /// <summary>The backward of a pass whose output is known.</summary>
    public Pullback Backward(Tensor x, ForwardContext context) => Run(x, context, output: false).Backward!;

    /// <summary>One pass: the output where it is asked for, and backward where a gradient is needed.</summary>
    protected abstract (Tensor? Output, Pullback? Backward) Run(Tensor x, ForwardContext context, bool output);
}
