using Memopt.Trainer.Autograd;
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

/// <summary>Linears that share an input, run one after another. Subclasses fuse them.</summary>
internal class LinearGroup(Linear[] linears)
{
    protected Linear[] Linears { get; } = linears;

    /// <summary>The group of the first linear that fuses its siblings, or the plain one.</summary>
    public static LinearGroup Of(Linear[] linears)
    {
        foreach (var linear in linears)
        {
            var group = linear.GroupWith(linears);
            if (group.GetType() != typeof(LinearGroup))
                return group;
        }
        return new(linears);
    }

    /// <summary>Begins a forward pass over (N, In).</summary>
    public virtual GroupPass Begin(Tensor x, ForwardContext context) =>
        new(Array.ConvertAll(Linears, linear => linear.Begin(x, context)));
}
