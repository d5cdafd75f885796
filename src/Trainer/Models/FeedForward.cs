using Memopt.Trainer.Kernels;
using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>
/// down(act(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202); gate and up fused in Phi-3. Keeps gate and up alone: the way back makes
/// their product again where its gradient lay.
/// </summary>
public sealed class FeedForward(ModelSpec spec)
{
    public Linear[] projections { get; init; } = [];                         // gate_proj, up_proj, or gate_up_proj alone
    public required Linear down_proj { get; set; }

    public Out forward(Tensor x, Pass pass, Wanted wanted = Wanted.All)      // (N, C) -> (N, C)
    {
        using var scope = NewDisposeScope();
        var rank = projections[0].ApartRank;
        var apart = rank is { } r && projections.All(projection => projection.ApartRank == rank) && Gated.Adds(x, spec.IntermediateSize, r);
        var (projected, projectedBack) = Together.Of(projections).forward(x, pass, apart ? Wanted.ValueApart : Wanted.All);
        var gated = Forward();                                               // (N, M)
        var output = down_proj.forward(gated, pass, wanted | Wanted.InputAgain | (apart && down_proj.ApartRank == rank ? Wanted.BackApart : Wanted.All));
        output.Value?.MoveToOuterDisposeScope();
        if (!pass.Learns)
            return output;
        gated.Dispose();
        scope.MoveAllOut();
        return new(output.Value!, (gradient, onto) =>
        {
            using var scope = NewDisposeScope();
            var again = output.Back!(gradient);
            Backward(again);
            output.Learn?.Invoke(again);
            again.Dispose();
            var dx = projectedBack!(Array.ConvertAll(projected, part => part.Value), onto);
            foreach (var part in projected)
                part.Value.Dispose();
            return onto ?? dx.MoveToOuterDisposeScope();
        });

        Tensor Forward()
        {
            using var scope = NewDisposeScope();
            var (gate, up) = (Half(0), Half(1));
            Func<long[], ScalarType, Tensor>? room = pass.Learns ? pass.Room : null;
            var gated = apart ? Gated.Forward(gate, up, Low(0), Low(1), spec.HiddenAct, room) : Gated.Forward(gate, up, spec.HiddenAct, room);
            foreach (var part in pass.Learns ? [] : projected)
                part.Value.Dispose();
            return gated.MoveToOuterDisposeScope();
        }

        void Backward(Tensor again)
        {
            using var scope = NewDisposeScope();
            if (apart)
                Gated.Backward(Half(0), Half(1), again, Low(0), Low(1), output.BackRest?.Invoke(), spec.HiddenAct);
            else
                Gated.Backward(Half(0), Half(1), again, spec.HiddenAct);
        }

        // Gate and up, and what of them is still to be added, whether they are two linears or halves of one.
        Tensor Half(int i) => projected.Length == 2 ? projected[i].Value : projected[0].Value.narrow(-1, i * spec.IntermediateSize, spec.IntermediateSize);

        LowRank Low(int i) => projected.Length == 2 ? projected[i].Rest!
            : projected[0].Rest! with { Right = projected[0].Rest!.Right.narrow(0, i * spec.IntermediateSize, spec.IntermediateSize) };
    }
}
