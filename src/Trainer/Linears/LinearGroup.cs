using Memopt.Trainer.Autograd;
using static TorchSharp.torch;

namespace Memopt.Trainer.Linears;

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
