using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Plan.Blocks;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>act(gate) · up between the linears of an MLP, and its backward, which writes the gradients of gate and up
/// over gate and up. A subclass fuses more into the kernel.</summary>
internal class GatedProduct(MlpSpec spec)
{
    protected MlpSpec Spec => spec;

    /// <summary>Whether this input can be computed so; the plain product takes every input.</summary>
    public virtual bool Supports(Tensor x, ForwardContext context) => true;

    /// <summary>The outputs of the projections that <see cref="Forward"/> takes.</summary>
    public virtual Tensor[] Project(GroupPass projections) => projections.Outputs();

    /// <summary>(N, M).</summary>
    /// <param name="projected">Gate and up, whether they are two linears or halves of one.</param>
    /// <param name="projections">Their pass.</param>
    /// <param name="workspace">Gives the memory of the product; null for a new tensor.</param>
    public virtual Tensor Forward(
        Tensor[] projected,
        GroupPass projections,
        Func<long[], ScalarType, Tensor>? workspace
    ) => GatedActivation.Forward(Half(projected, 0), Half(projected, 1), spec.Activation, workspace);

    /// <summary>The gradient of the product, by down_proj, as <see cref="Backward"/> takes it.</summary>
    public virtual Tensor InputGradient(LinearPass down, Tensor gradient) => down.InputGradient(gradient, null);

    /// <summary>Writes the gradients of gate and up over them, and the product over its gradient.</summary>
    /// <param name="projected">Gate and up; afterwards their gradients.</param>
    /// <param name="projections">Their pass.</param>
    /// <param name="down">The pass of down_proj.</param>
    /// <param name="product">From <see cref="InputGradient"/>; afterwards the product itself.</param>
    public virtual void Backward(Tensor[] projected, GroupPass projections, LinearPass down, Tensor product) =>
        GatedActivation.Backward(Half(projected, 0), Half(projected, 1), product, spec.Activation);

    /// <summary>Gate (0) or up (1), (N, M).</summary>
    protected Tensor Half(Tensor[] projected, int i) =>
        projected.Length == 2
            ? projected[i]
            : projected[0].narrow(-1, i * spec.IntermediateSize, spec.IntermediateSize);
}
