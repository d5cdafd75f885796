using Memopt.Core;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>A product of low rank that is still to be added to something: Scale · Left · Right.</summary>
/// <param name="Left">(N, r), rows at any even stride.</param>
/// <param name="Right">(columns, r), or (r, columns) in backward: the layouts of LoRA's B and A.</param>
/// <param name="Scale">Factor.</param>
internal sealed record LowRank(Tensor Left, Tensor Right, double Scale);

/// <summary>act(gate) · up (Shazeer 2020, arXiv 2002.05202). Low-rank parts of its inputs can be left to it: adding
/// them first would read and write everything once more.</summary>
internal static class GatedActivation
{
    private static readonly Kernel kernel = new("Gated.cu");

    /// <summary>Activations by their names in config.json, in the order of the kernel's numbers.</summary>
    public static readonly IReadOnlyList<string> Activations = ["silu", "relu", "gelu", "gelu_pytorch_tanh"];

    /// <summary>gate and up (B, T, M), rows at any stride that both share → (B, T, M), in room that is given or
    /// new.</summary>
    public static Tensor Forward(Tensor gate, Tensor up, string act, Func<long[], ScalarType, Tensor>? workspace = null)
    {
        if (!Kernel.Supports(gate))
            return Reference(gate, up, act);
        var width = gate.shape[^1];
        var y = workspace?.Invoke(gate.shape, gate.dtype) ?? empty(gate.shape, gate.dtype, gate.device);
        kernel.Launch(
            "forward",
            gate.dtype,
            (y.numel() / width, 1),
            (Threads(width), 1),
            [gate, up, y, gate.stride(-2), (int)width, Kind(act), Packed(gate, up)]
        );
        return y;
    }

    /// <summary>In place: <paramref name="gate"/> and <paramref name="up"/> become their gradients, and
    /// <paramref name="gradient"/> becomes the output again.</summary>
    public static void Backward(Tensor gate, Tensor up, Tensor gradient, string act)
    {
        if (!Kernel.Supports(gate))
        {
            ReferenceBackward(gate, up, gradient, act);
            return;
        }
        var width = gate.shape[^1];
        kernel.Launch(
            "backward",
            gate.dtype,
            (gradient.numel() / width, 1),
            (Threads(width), 1),
            [gate, up, gradient, gate.stride(-2), (int)width, Kind(act), Packed(gate, up)]
        );
    }

    private static readonly bool tensorCores = Cuda.Capability() >= 80;

    /// <summary>Whether low-rank parts of some rank may be left to the calls below.</summary>
    public static bool CanFuseLowRank(Tensor x, long width, int rank) =>
        tensorCores
        && rank is 16 or 32 or 64
        && width % 32 == 0
        && x.dtype is ScalarType.BFloat16 or ScalarType.Float16
        && Kernel.Supports(x);

    /// <summary>As <see cref="Forward(Tensor, Tensor, string, Func{long[], ScalarType, Tensor}?)"/> of gate + its
    /// low-rank part and up + its.</summary>
    public static Tensor Forward(
        Tensor gate,
        Tensor up,
        LowRank lowGate,
        LowRank lowUp,
        string act,
        Func<long[], ScalarType, Tensor>? workspace = null
    )
    {
        var width = gate.shape[^1];
        var y = workspace?.Invoke(gate.shape, gate.dtype) ?? empty(gate.shape, gate.dtype, gate.device);
        var rows = y.numel() / width;
        kernel.Launch(
            $"forward_low{lowGate.Left.shape[^1]}",
            gate.dtype,
            ((width + 255) / 256, (rows + Span - 1) / Span),
            (256, 1),
            [
                gate,
                up,
                y,
                lowGate.Left,
                lowGate.Left.stride(0),
                lowGate.Right,
                (float)lowGate.Scale,
                lowUp.Left,
                lowUp.Left.stride(0),
                lowUp.Right,
                (float)lowUp.Scale,
                rows,
                (int)width,
                gate.stride(-2),
                Kind(act),
                Span,
            ]
        );
        return y;
    }

    /// <summary>As <see cref="Backward(Tensor, Tensor, Tensor, string)"/>, with low-rank parts of gate, up and, where
    /// given, of the gradient still to be added.</summary>
    public static void Backward(
        Tensor gate,
        Tensor up,
        Tensor gradient,
        LowRank lowGate,
        LowRank lowUp,
        LowRank? low,
        string act
    )
    {
        var width = gate.shape[^1];
        var rows = gradient.numel() / width;
        kernel.Launch(
            $"backward_low{lowGate.Left.shape[^1]}",
            gate.dtype,
            ((width + 255) / 256, (rows + Span - 1) / Span),
            (256, 1),
            [
                gate,
                up,
                gradient,
                lowGate.Left,
                lowGate.Left.stride(0),
                lowGate.Right,
                (float)lowGate.Scale,
                lowUp.Left,
                lowUp.Left.stride(0),
                lowUp.Right,
                (float)lowUp.Scale,
                KernelArg.Maybe(low?.Left),
                low?.Left.stride(0) ?? 0,
                KernelArg.Maybe(low?.Right),
                (float)(low?.Scale ?? 0),
                rows,
                (int)width,
                gate.stride(-2),
                Kind(act),
                Span,
            ]
        );
    }

    // Rows that a block goes down with one reading of the right factors.
    private const int Span = 128;

    internal static Tensor Reference(Tensor gate, Tensor up, string act)
    {
        using var scope = NewDisposeScope();
        return Activate(gate, act).mul(up).MoveToOuterDisposeScope();
    }

    internal static void ReferenceBackward(Tensor gate, Tensor up, Tensor gradient, string act)
    {
        using var scope = NewDisposeScope();
        var leaf = gate.detach().clone().requires_grad_(true);
        Tensor activated;
        using (enable_grad())
            activated = Activate(leaf, act);
        var value = activated.detach();
        gate.copy_(autograd.grad([activated], [leaf], [gradient * up])[0]);
        var again = value * up;
        up.copy_(value.mul(gradient));
        gradient.copy_(again);
    }

    private static Tensor Activate(Tensor gate, string act) =>
        act switch
        {
            "silu" => nn.functional.silu(gate),
            "relu" => nn.functional.relu(gate),
            "gelu" => nn.functional.gelu(gate),
            "gelu_pytorch_tanh" => 0.5 * gate * (1 + tanh(Math.Sqrt(2 / Math.PI) * (gate + 0.044715 * gate.pow(3)))),
            _ => throw new UserFault($"hidden_act \"{act}\" is not known."),
        };

    private static int Kind(string act)
    {
        for (var i = 0; i < Activations.Count; i++)
        {
            if (Activations[i] == act)
                return i;
        }
        throw new UserFault($"hidden_act \"{act}\" is not known.");
    }

    private static int Packed(Tensor gate, Tensor up) =>
        Kernel.Packed(gate.shape[^1], gate, up) & Kernel.Packed(gate.stride(-2), gate);

    private static int Threads(long width) => width <= 1024 ? 128 : 256;
}
