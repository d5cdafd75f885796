using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>What came of linears that share an input.</summary>
/// <param name="Parts">Of each; their ways back are not to be called.</param>
/// <param name="Backward">Gradients of the values → that of the input, added to the second where given.</param>
public sealed record GroupResult(ForwardResult[] Parts, Func<Tensor[], Tensor?, Tensor>? Backward);

/// <summary>Linears that share an input, run one after another. What can be done at once for all is a subclass's.</summary>
public class LinearGroup(Linear[] linears)
{
    protected Linear[] Linears { get; } = linears;

    /// <summary>The way that the first of them with a way of its own has.</summary>
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
        return new(parts, !context.NeedsGradient ? null : (gradients, accumulateInto) =>
        {
            using var scope = NewDisposeScope();
            var dx = accumulateInto;
            for (var i = 0; i < parts.Length; i++)
                dx = parts[i].Backward!(gradients[i], dx);
            return accumulateInto ?? dx!.MoveToOuterDisposeScope();
        });
    }
}
