using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Plan.Blocks;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>down(act(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202); gate and up fused in Phi-3. Saves gate and up
/// alone: backward makes their product again where its gradient lay.
/// </summary>
internal sealed class Mlp(MlpSpec spec)
{
    public required Projections projections { get; init; } // gate_proj, up_proj, or gate_up_proj alone
    public required Linear down_proj { get; set; }

    // (N, C) -> (N, C)
    public ForwardResult forward(Tensor x, ForwardContext context, LinearMode mode = LinearMode.Full)
    {
        using var scope = NewDisposeScope();
        var rank = projections[0].FusableRank;
        var apart =
            !context.AdaptersDisabled
            && rank is { } r
            && projections.All(projection => projection.FusableRank == rank)
            && GatedActivation.CanFuseLowRank(x, spec.IntermediateSize, r);
        var (projected, projectedBack) = projections.Group.forward(
            x,
            context,
            apart ? LinearMode.DeferLowRank : LinearMode.Full
        );
        var gated = Forward(); // (N, M)
        var output = down_proj.forward(
            gated,
            context,
            mode
                | LinearMode.RecomputesInput
                | (apart && down_proj.FusableRank == rank ? LinearMode.DeferLowRankGradient : LinearMode.Full)
        );
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
                var again = output.Backward!(gradient);
                Backward(again);
                output.WeightGradient?.Invoke(again);
                again.Dispose();
                var dx = projectedBack!(Array.ConvertAll(projected, part => part.Output), accumulateInto);
                foreach (var part in projected)
                    part.Output.Dispose();
                return accumulateInto ?? dx.MoveToOuterDisposeScope();
            }
        );

        Tensor Forward()
        {
            using var scope = NewDisposeScope();
            var (gate, up) = (Half(0), Half(1));
            Func<long[], ScalarType, Tensor>? workspace = context.NeedsGradient ? context.Workspace : null;
            var gated = apart
                ? GatedActivation.Forward(gate, up, Low(0), Low(1), spec.Activation, workspace)
                : GatedActivation.Forward(gate, up, spec.Activation, workspace);
            foreach (var part in context.NeedsGradient ? [] : projected)
                part.Output.Dispose();
            return gated.MoveToOuterDisposeScope();
        }

        void Backward(Tensor again)
        {
            using var scope = NewDisposeScope();
            if (apart)
                GatedActivation.Backward(
                    Half(0),
                    Half(1),
                    again,
                    Low(0),
                    Low(1),
                    output.PendingLowRankGradient?.Invoke(),
                    spec.Activation
                );
            else
                GatedActivation.Backward(Half(0), Half(1), again, spec.Activation);
        }

        // Gate and up, and what of them is still to be added, whether they are two linears or halves of one.
        Tensor Half(int i) =>
            projected.Length == 2
                ? projected[i].Output
                : projected[0].Output.narrow(-1, i * spec.IntermediateSize, spec.IntermediateSize);

        LowRank Low(int i) =>
            projected.Length == 2
                ? projected[i].PendingLowRank!
                : projected[0].PendingLowRank! with
                {
                    Right = projected[0]
                        .PendingLowRank!.Right.narrow(0, i * spec.IntermediateSize, spec.IntermediateSize),
                };
    }
}
