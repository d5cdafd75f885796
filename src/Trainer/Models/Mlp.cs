using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Plan.Blocks;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>down(act(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202); gate and up fused in Phi-3. Saves gate and up
/// alone: backward computes their product again where its gradient lay.
/// </summary>
internal sealed class Mlp(MlpSpec spec)
{
    public required Projections projections { get; init; } // gate_proj, up_proj, or gate_up_proj alone
    public required Linear down_proj { get; set; }

    // (N, C) -> (N, C)
    public ForwardResult forward(Tensor x, ForwardContext context, LinearMode mode = LinearMode.Full)
    {
        using var scope = NewDisposeScope();
        var deferred = DefersLowRank(x, context);
        var (projected, projectedBackward) = projections.Group.forward(
            x,
            context,
            deferred ? LinearMode.DeferLowRank : LinearMode.Full
        );
        var gate = new Gate(spec, projected, deferred);
        var gated = gate.Forward(context); // (N, M)
        if (deferred && down_proj.FusableRank == projections[0].FusableRank)
            mode |= LinearMode.DeferLowRankGradient;
        var output = down_proj.forward(gated, context, mode | LinearMode.RecomputesInput);
        output.Computed?.MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return output;
        gated.Dispose();
        scope.MoveAllOut();
        return new(
            output.Computed,
            (gradient, accumulateInto) =>
            {
                using var scope = NewDisposeScope();
                var product = output.Backward!(gradient);
                gate.Backward(product, output.PendingLowRankGradient);
                output.WeightGradient?.Invoke(product);
                product.Dispose();
                var dx = projectedBackward!(Array.ConvertAll(projected, part => part.Output), accumulateInto);
                foreach (var part in projected)
                    part.Output.Dispose();
                return accumulateInto ?? dx.MoveToOuterDisposeScope();
            }
        );
    }

    /// <summary>Whether the gated kernel adds LoRA's part of gate and up, in registers.</summary>
    private bool DefersLowRank(Tensor x, ForwardContext context) =>
        !context.AdaptersDisabled
        && projections[0].FusableRank is { } rank
        && projections.All(projection => projection.FusableRank == rank)
        && GatedActivation.CanFuseLowRank(x, spec.IntermediateSize, rank);

    /// <summary>act(gate) · up of one forward pass, and its backward, which puts the gradients of gate and up where
    /// gate and up were.</summary>
    /// <param name="spec">The shape.</param>
    /// <param name="projected">Gate and up, whether they are two linears or halves of one.</param>
    /// <param name="deferred">Whether their low-rank parts are still to be added.</param>
    private sealed class Gate(MlpSpec spec, ForwardResult[] projected, bool deferred)
    {
        public Tensor Forward(ForwardContext context)
        {
            using var scope = NewDisposeScope();
            Func<long[], ScalarType, Tensor>? workspace = context.NeedsGradient ? context.Workspace : null;
            var gated = deferred
                ? GatedActivation.Forward(Half(0), Half(1), LowRank(0), LowRank(1), spec.Activation, workspace)
                : GatedActivation.Forward(Half(0), Half(1), spec.Activation, workspace);
            foreach (var part in context.NeedsGradient ? [] : projected)
                part.Output.Dispose();
            return gated.MoveToOuterDisposeScope();
        }

        /// <param name="product">The gradient of the product; afterwards the product itself.</param>
        /// <param name="pending">The part of that gradient which the kernel is to add, or null.</param>
        public void Backward(Tensor product, Func<LowRank>? pending)
        {
            using var scope = NewDisposeScope();
            if (deferred)
                GatedActivation.Backward(
                    Half(0),
                    Half(1),
                    product,
                    LowRank(0),
                    LowRank(1),
                    pending?.Invoke(),
                    spec.Activation
                );
            else
                GatedActivation.Backward(Half(0), Half(1), product, spec.Activation);
        }

        private Tensor Half(int i) =>
            projected.Length == 2
                ? projected[i].Output
                : projected[0].Output.narrow(-1, i * spec.IntermediateSize, spec.IntermediateSize);

        private LowRank LowRank(int i)
        {
            if (projected.Length == 2)
                return projected[i].PendingLowRank!;
            var both = projected[0].PendingLowRank!;
            return both with { Right = both.Right.narrow(0, i * spec.IntermediateSize, spec.IntermediateSize) };
        }
    }
}
