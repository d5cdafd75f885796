using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>Room for one expanded weight, shared by all of a model: each is done with before the next is expanded.
/// Room that came and went with every product would be given to what a layer keeps, and the next product would need
/// new.
/// </summary>
internal sealed class Nf4Scratch : IDisposable
{
    private long most;
    private Tensor? buffer;

    /// <summary>Called with each weight before the first is expanded, so that the buffer is made once.</summary>
    public void Attach(Nf4 weight) => most = Math.Max(most, weight.Shape[0] * weight.Shape[1]);

    /// <summary>The weight in a float type; good until the next call, freed as any tensor.</summary>
    public Tensor Expand(Nf4 weight, ScalarType type)
    {
        if (!Allocate(weight.Codes.device, type))
            return weight.Dequantize(type);
        using var part = buffer!.narrow(0, 0, weight.Shape[0] * weight.Shape[1]);
        var y = part.view(weight.Shape);
        weight.DequantizeTo(y);
        return y;
    }

    /// <summary>Bytes that it holds.</summary>
    public long Bytes => buffer is null ? 0 : buffer.numel() * buffer.element_size();

    /// <summary>Allocates the memory for an expanded weight. False where weights are expanded without it: on a
    /// CPU.</summary>
    public bool Allocate(Device device, ScalarType type)
    {
        if (!Kernel.Supports(device, type))
            return false;
        if (buffer is null || buffer.dtype != type || buffer.numel() < most)
        {
            buffer?.Dispose();
            buffer = empty([most], type, device).DetachFromDisposeScope();
        }
        return true;
    }

    public void Dispose() => buffer?.Dispose();
}
