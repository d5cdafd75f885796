using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>Arithmetic that libtorch's autograd differentiates: a graph over a few leaves, not over the
/// model.</summary>
internal static class LocalAutograd
{
    /// <summary>Runs <paramref name="arithmetic"/> over detached inputs; the second result maps the gradient of the
    /// output to that of each input.</summary>
    public static (Tensor Output, Func<Tensor, IList<Tensor>>? Backward) Run(
        bool needsGradient,
        Tensor[] inputs,
        Func<Tensor[], Tensor> arithmetic
    )
    {
        using var scope = NewDisposeScope();
        if (!needsGradient)
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
        return (
            output.detach().MoveToOuterDisposeScope(),
            gradient =>
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
