using Memopt.Trainer.Autograd;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Plan.Blocks;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>down(act(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202); gate and up fused in Phi-3. Saves gate and up
/// alone: backward computes their product again where its gradient lay.
/// </summary>
/// <param name="spec">Its shape; that of this rank's channels where tensor parallel ranks share it.</param>
/// <param name="tensor">These ranks, or null.</param>
internal sealed class Mlp(MlpSpec spec, TensorParallel? tensor = null) : Block
{
    private readonly GatedProduct plain = new(spec);

    public MlpSpec Spec => spec;

    public required Projections projections { get; init; } // gate_proj, up_proj, or gate_up_proj alone
    public required Linear down_proj { get; set; }

    /// <summary>The gated product with an adapter fused into it; null where there is none.</summary>
    public GatedProduct? Fused { get; set; }

    protected override (Tensor? Output, Pullback? Backward) Run(Tensor x, ForwardContext context, bool output)
    {
        using var scope = NewDisposeScope();
        var gate = Fused?.Supports(x, context) == true ? Fused : plain;
        var up = projections.Group.Begin(x, context);
        var projected = gate.Project(up);
        var product = Product(gate, projected, up, context); // (N, M)
        var down = down_proj.Begin(product, context);
        var y = output ? down.Output().MoveToOuterDisposeScope() : null;
        if (y is not null)
            tensor?.Complete(y, down_proj);
        if (!context.NeedsGradient)
            return (y, null);
        product.Dispose();
        scope.MoveAllOut();
        return (y, Backward);

        Tensor Backward(Tensor gradient, Tensor? accumulateInto)
        {
            using var scope = NewDisposeScope();
            var product = gate.InputGradient(down, gradient);
            using (NewDisposeScope())
                gate.Backward(projected, up, down, product);
            down.WeightGradient(gradient, product);
            product.Dispose();
            var dx = up.Backward(projected, accumulateInto);
            tensor?.AllReduce(dx);
            foreach (var part in projected)
                part.Dispose();
            return accumulateInto ?? dx.MoveToOuterDisposeScope();
        }
    }

    private static Tensor Product(GatedProduct gate, Tensor[] projected, GroupPass up, ForwardContext context)
    {
        using var scope = NewDisposeScope();
        var product = gate.Forward(projected, up, context.NeedsGradient ? context.Workspace : null);
        if (!context.NeedsGradient)
        {
            foreach (var part in projected)
                part.Dispose();
        }
        return product.MoveToOuterDisposeScope();
    }
}
