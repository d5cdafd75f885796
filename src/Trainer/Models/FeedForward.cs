using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>down(act(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202); gate and up fused in Phi-3.</summary>
public sealed class FeedForward(ModelSpec spec)
{
    public Linear[] projections { get; init; } = [];                         // gate_proj, up_proj, or gate_up_proj alone
    public required Linear down_proj { get; set; }

    public Out forward(Tensor x, Pass pass)                                  // (B, T, C) -> (B, T, C)
    {
        var projected = Array.ConvertAll(projections, projection => projection.forward(x, pass));
        var parts = projected.Length == 2 ? Array.ConvertAll(projected, p => p.Value) : projected[0].Value.chunk(2, -1);
        var (gated, gatedBack) = Local.Run(pass.Learns, [parts[0], parts[1]], gu => Activate(gu[0]) * gu[1]);   // (B, T, M)
        var output = down_proj.forward(gated, pass);
        if (!pass.Learns)
            return output;
        return new(output.Value, gradient =>
        {
            var g = gatedBack!(output.Back!(gradient));
            if (projected.Length == 1)
                return projected[0].Back!(cat([g[0], g[1]], -1));
            return projected[0].Back!(g[0]).add_(projected[1].Back!(g[1]));
        });
    }

    private Tensor Activate(Tensor gate) => spec.HiddenAct switch
    {
        "silu" => nn.functional.silu(gate),
        "relu" => nn.functional.relu(gate),
        "gelu" => nn.functional.gelu(gate),
        "gelu_pytorch_tanh" => 0.5 * gate * (1 + tanh(Math.Sqrt(2 / Math.PI) * (gate + 0.044715 * gate.pow(3)))),
        var other => throw new UserFault($"hidden_act \"{other}\" is not known."),
    };
}
