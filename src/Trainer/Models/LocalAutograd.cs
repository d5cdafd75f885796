using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>A stretch of arithmetic that libtorch differentiates: a graph over a few leaves, not over the model.</summary>
internal static class LocalAutograd
{
    /// <summary>Runs <paramref name="arithmetic"/> over detached inputs; the second result maps the output's gradient to each input's.</summary>
    public static (Tensor Value, Func<Tensor, IList<Tensor>>? Back) Run(bool learns, Tensor[] inputs, Func<Tensor[], Tensor> arithmetic)
    {
        using var scope = NewDisposeScope();
        if (!learns)
        {
            using (no_grad())
                return (arithmetic(inputs).MoveToOuterDisposeScope(), null);
        }
        var leaves = Array.ConvertAll(inputs, input => input.detach().requires_grad_(true));
        Tensor output;
        using (enable_grad())
            output = arithmetic(leaves);
        foreach (var leaf in leaves)
            leaf.MoveToOuterDisposeScope();
        output.MoveToOuterDisposeScope();
        return (output.detach().MoveToOuterDisposeScope(), gradient =>
        {
            var gradients = autograd.grad([output], leaves, [gradient]);
            output.Dispose();
            foreach (var leaf in leaves)
                leaf.Dispose();
            return gradients;
        }
        );
    }
}
