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
        var projected = Array.ConvertAll(projections, projection => projection.forward(x, pass));
        var gated = Gate();                                                  // (N, M)
        var output = down_proj.forward(gated, pass, wanted | Wanted.InputAgain);
        output.Value?.MoveToOuterDisposeScope();
        if (!pass.Learns)
            return output;
        gated.Dispose();
        scope.MoveAllOut();
        return new(output.Value!, (gradient, onto) =>
        {
            using var scope = NewDisposeScope();
            var again = output.Back!(gradient);
            var (gate, up) = Halves();
            Gated.Backward(gate, up, again, spec.HiddenAct);
            output.Learn?.Invoke(again);
            again.Dispose();
            var dx = projected[0].Back!(projected[0].Value, onto);
            if (projected.Length == 2)
                dx = projected[1].Back!(projected[1].Value, dx);
            foreach (var part in projected)
                part.Value.Dispose();
            return onto ?? dx.MoveToOuterDisposeScope();
        });

        Tensor Gate()
        {
            using var scope = NewDisposeScope();
            var (gate, up) = Halves();
            var gated = Gated.Forward(gate, up, spec.HiddenAct).MoveToOuterDisposeScope();
            foreach (var part in pass.Learns ? [] : projected)
                part.Value.Dispose();
            return gated;
        }

        (Tensor, Tensor) Halves()
        {
            if (projected.Length == 2)
                return (projected[0].Value, projected[1].Value);
            var halves = projected[0].Value.chunk(2, -1);
            return (halves[0], halves[1]);
        }
    }
}
