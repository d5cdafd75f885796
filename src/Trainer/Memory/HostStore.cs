using Memopt.Trainer.Native;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>Layers in pinned memory of the host of a GPU.</summary>
internal sealed class HostStore : LayerStore
{
    private readonly List<Tensor> layers = [];
    private readonly Cuda.Stream copies = new();
    private readonly Cuda.Event queued = new();

    public override int Add(long bytes)
    {
        var host = empty([bytes], uint8, CPU);
        Cuda.Pin(Aten.DataPointer(host), bytes);
        layers.Add(host.DetachFromDisposeScope());
        return layers.Count - 1;
    }

    public override void RemoveLast()
    {
        copies.Wait();
        Cuda.Unpin(Aten.DataPointer(layers[^1]));
        layers[^1].Dispose();
        layers.RemoveAt(layers.Count - 1);
    }

    public override void Write(int layer, long offset, nint from, long count)
    {
        copies.WaitForCompute(queued);
        copies.ToHost(Aten.DataPointer(layers[layer]) + (nint)offset, from, count);
    }

    public override void Read(int layer, nint to, Cuda.Stream? copies) =>
        copies!.ToDevice(to, Aten.DataPointer(layers[layer]), layers[layer].numel());

    public override void Flush() => copies.Wait();

    public override void Dispose()
    {
        while (layers.Count > 0)
            RemoveLast();
        copies.Dispose();
        queued.Dispose();
    }
}
