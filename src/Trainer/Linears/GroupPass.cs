using static TorchSharp.torch;

namespace Memopt.Trainer.Linears;

/// <summary>One forward pass of linears that share an input, until their backward has run.</summary>
/// <param name="passes">The pass of each linear. Their own backwards are not called; that of the group is.</param>
internal class GroupPass(LinearPass[] passes)
{
    public LinearPass[] Passes => passes;

    /// <summary>The output of each linear, in the caller's dispose scope.</summary>
    public Tensor[] Outputs() => Array.ConvertAll(passes, pass => pass.Output());

    /// <summary>From the gradients of the outputs to that of the input; accumulates the gradients of the
    /// parameters.</summary>
    /// <param name="gradients">Of each output.</param>
    /// <param name="accumulateInto">The gradient is added to it, and it is returned; null for a new tensor.</param>
    public virtual Tensor Backward(Tensor[] gradients, Tensor? accumulateInto)
    {
        using var scope = NewDisposeScope();
        var dx = accumulateInto;
        for (var i = 0; i < passes.Length; i++)
            dx = passes[i].Backward(gradients[i], dx);
        return accumulateInto ?? dx!.MoveToOuterDisposeScope();
    }
}
