using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan.Blocks;
using static TorchSharp.torch;

namespace Memopt.Trainer.Adapters;

/// <summary>The gated activation of an MLP whose gate and up have LoRA: the kernel adds their low-rank parts in its
/// registers, and in backward that of down_proj too, where the ranks are equal. Adding them first would read and write
/// every activation once more.</summary>
internal sealed class GatedLora : GatedProduct
{
    private readonly int rank;
    private readonly bool fusesDown;

    private GatedLora(MlpSpec spec, int rank, bool fusesDown)
        : base(spec) => (this.rank, this.fusesDown) = (rank, fusesDown);

    /// <summary>The fused activation of an MLP, or null where its linears do not allow one.</summary>
    public static GatedLora? TryFuse(Mlp mlp)
    {
        if (RankOf(mlp.projections[0]) is not { } rank || mlp.projections.Any(linear => RankOf(linear) != rank))
            return null;
        return new(mlp.Spec, rank, RankOf(mlp.down_proj) == rank);
    }

    public override bool Supports(Tensor x, ForwardContext context) =>
        !context.AdaptersDisabled && GatedActivation.CanFuseLowRank(x, Spec.IntermediateSize, rank);

    /// <summary>The outputs of the frozen linears alone.</summary>
    public override Tensor[] Project(GroupPass projections) =>
        Array.ConvertAll(projections.Passes, pass => ((LoraPass)pass).Inner.Output());

    public override Tensor Forward(
        Tensor[] projected,
        GroupPass projections,
        Func<long[], ScalarType, Tensor>? workspace
    ) =>
        GatedActivation.Forward(
            Half(projected, 0),
            Half(projected, 1),
            Low(projections, 0),
            Low(projections, 1),
            Spec.Activation,
            workspace
        );

    public override Tensor InputGradient(LinearPass down, Tensor gradient) =>
        fusesDown ? ((LoraPass)down).InnerInputGradient(gradient, null) : base.InputGradient(down, gradient);

    public override void Backward(Tensor[] projected, GroupPass projections, LinearPass down, Tensor product) =>
        GatedActivation.Backward(
            Half(projected, 0),
            Half(projected, 1),
            product,
            Low(projections, 0),
            Low(projections, 1),
            fusesDown ? ((LoraPass)down).LowGradient : null,
            Spec.Activation
        );

    private LowRank Low(GroupPass projections, int i)
    {
        if (projections.Passes.Length == 2)
            return ((LoraPass)projections.Passes[i]).Low;
        var both = ((LoraPass)projections.Passes[0]).Low;
        return both with { Right = both.Right.narrow(0, i * Spec.IntermediateSize, Spec.IntermediateSize) };
    }

    private static int? RankOf(Linear linear) => linear is LoraLinear { Dropout: 0 } lora ? lora.Rank : null;
}
