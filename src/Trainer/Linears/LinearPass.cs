using Memopt.Trainer.Autograd;
using static TorchSharp.torch;

namespace Memopt.Trainer.Linears;

/// <summary>One forward pass of a linear, until its backward has run. The output is computed when it is asked for: the
/// second forward of activation checkpointing does not need it. Tensors that the pass saves are in the dispose scope in
/// which the pass began.</summary>
/// <param name="input">(N, In).</param>
internal abstract class LinearPass(Tensor input)
{
    /// <summary>(N, In). The caller may free it where it gives <see cref="WeightGradient"/> the input again.</summary>
    protected Tensor Input => input;

    /// <summary>The output (N, Out), in the caller's dispose scope.</summary>
    public abstract Tensor Output();

    /// <summary>From the gradient of the output to that of the input; accumulates the gradients of the
    /// parameters.</summary>
    /// <param name="gradient">(N, Out).</param>
    /// <param name="accumulateInto">(N, In): the gradient is added to it, and it is returned; null for a new
    /// tensor.</param>
    public virtual Tensor Backward(Tensor gradient, Tensor? accumulateInto = null)
    {
        WeightGradient(gradient, Input);
        return InputGradient(gradient, accumulateInto);
    }

    /// <summary>The first half of backward, for a caller that computes the input again after it: the gradient of the
    /// input alone.</summary>
    public abstract Tensor InputGradient(Tensor gradient, Tensor? accumulateInto);

    /// <summary>The second half: accumulates the gradients of the parameters that need the input.</summary>
    /// <param name="gradient">(N, Out), as the first half had it.</param>
    /// <param name="input">(N, In).</param>
    public abstract void WeightGradient(Tensor gradient, Tensor input);
}
