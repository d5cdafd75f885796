using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>act(gate) · up (Shazeer 2020, arXiv 2002.05202).</summary>
public static class Gated
{
    private static readonly Kernel kernel = new("Gated.cu");

    /// <summary>Activations by their names in config.json, in the order of the kernel's numbers.</summary>
    public static readonly IReadOnlyList<string> Activations = ["silu", "relu", "gelu", "gelu_pytorch_tanh"];

    /// <summary>gate and up (B, T, M), rows at any stride that both share → (B, T, M).</summary>
    public static Tensor Forward(Tensor gate, Tensor up, string act)
    {
        if (!Kernel.Serves(gate))
            return Reference(gate, up, act);
        var width = gate.shape[^1];
        var y = empty(gate.shape, gate.dtype, gate.device);
        kernel.Launch("forward", gate.dtype, (y.numel() / width, 1), (Threads(width), 1), [gate, up, y, gate.stride(-2), (int)width, Kind(act), Packed(gate, up)]);
        return y;
    }

    /// <summary>In place: <paramref name="gate"/> and <paramref name="up"/> become their gradients, and <paramref name="gradient"/> becomes the output again.</summary>
    public static void Backward(Tensor gate, Tensor up, Tensor gradient, string act)
    {
        if (!Kernel.Serves(gate))
        {
            ReferenceBackward(gate, up, gradient, act);
            return;
        }
        var width = gate.shape[^1];
        kernel.Launch("backward", gate.dtype, (gradient.numel() / width, 1), (Threads(width), 1), [gate, up, gradient, gate.stride(-2), (int)width, Kind(act), Packed(gate, up)]);
    }

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

    private static Tensor Activate(Tensor gate, string act) => act switch
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

    private static int Packed(Tensor gate, Tensor up) => Kernel.Packed(gate.shape[^1], gate, up) & Kernel.Packed(gate.stride(-2), gate);

    private static int Threads(long width) => width <= 1024 ? 128 : 256;
}
