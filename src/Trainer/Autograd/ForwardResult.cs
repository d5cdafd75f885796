using Memopt.Trainer.Kernels;
using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>The result of a forward: the output and, where a gradient is needed, backward. Backwards are composed by
/// hand and not by an autograd graph, so every saved tensor is visible: a linear saves its input, never a dequantized
/// weight.
/// </summary>
/// <param name="Computed">The output; null where the caller asked for backward alone (LinearMode.SkipOutput).</param>
/// <param name="Backward">From the gradient of the output to that of the input; null where no gradient is
/// needed.</param>
/// <param name="WeightGradient">Of a linear in mode RecomputesInput: takes the input and accumulates the gradient of
/// the weight, after <paramref name="Backward"/>.</param>
/// <param name="PendingLowRank">Of a linear in mode DeferLowRank: the part that the caller adds to the output.</param>
/// <param name="PendingLowRankGradient">Of a linear in mode DeferLowRankGradient, after <paramref name="Backward"/>:
/// the part that the caller adds to the gradient of the input.</param>
internal readonly record struct ForwardResult(
    Tensor? Computed,
    Pullback? Backward,
    Action<Tensor>? WeightGradient = null,
    LowRank? PendingLowRank = null,
    Func<LowRank>? PendingLowRankGradient = null
)
{
    /// <summary>The output.</summary>
    /// <exception cref="InvalidOperationException">It was skipped.</exception>
    public Tensor Output =>
        Computed ?? throw new InvalidOperationException("The output was skipped: the caller asked for backward alone.");

    public void Deconstruct(out Tensor output, out Pullback? backward) => (output, backward) = (Output, Backward);
}
