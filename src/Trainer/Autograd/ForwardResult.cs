using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>The result of a forward: the output and, where a gradient is needed, backward. Backwards are composed by
/// hand and not by an autograd graph, so every saved tensor is visible: a linear saves its input, never a dequantized
/// weight.
/// </summary>
/// <param name="Output">The output.</param>
/// <param name="Backward">From the gradient of the output to that of the input; null where no gradient is
/// needed.</param>
internal readonly record struct ForwardResult(Tensor Output, Pullback? Backward);
