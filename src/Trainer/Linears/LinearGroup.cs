using Memopt.Trainer.Autograd;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Linears;

/// <summary>The results of linears that share an input.</summary>
/// <param name="Parts">The result of each; their backwards are not called, <paramref name="Backward"/> is.</param>
/// <param name="Backward">From the gradients of the outputs to that of the input; accumulates into the second argument
/// where given.</param>
internal sealed record GroupResult(ForwardResult[] Parts, Func<Tensor[], Tensor?, Tensor>? Backward);

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

    public virtual GroupResult forward(Tensor x, ForwardContext context, LinearMode mode)
    {
        var parts = Array.ConvertAll(Linears, linear => linear.forward(x, context, mode));
        return new(
            parts,
            !context.NeedsGradient
                ? null
                : (gradients, accumulateInto) =>
                {
                    using var scope = NewDisposeScope();
                    var dx = accumulateInto;
                    for (var i = 0; i < parts.Length; i++)
                        dx = parts[i].Backward!(gradients[i], dx);
                    return accumulateInto ?? dx!.MoveToOuterDisposeScope();
                }
        );
    }
}
