using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>Layers, or a rank's slices of them, in memory of the computing device.</summary>
internal sealed unsafe class DeviceStore(Device device) : LayerStore
{
    private readonly List<Tensor> layers = [];

    /// <summary>The memory of a layer, uint8.</summary>
    public Tensor this[int layer] => layers[layer];

    public override int Add(long bytes)
    {
        layers.Add(empty([bytes], uint8, device).DetachFromDisposeScope());
        return layers.Count - 1;
    }

    public override void RemoveLast()
    {
        layers[^1].Dispose();
        layers.RemoveAt(layers.Count - 1);
    }

    public override void Write(int layer, long offset, nint from, long count)
    {
        var to = Aten.DataPointer(layers[layer]) + (nint)offset;
        if (device.type == DeviceType.CUDA)
            Cuda.Copy(to, from, count);
        else
            Buffer.MemoryCopy((void*)from, (void*)to, count, count);
    }

    public override void Read(int layer, nint to, Cuda.Stream? copies)
    {
        var (from, count) = (Aten.DataPointer(layers[layer]), layers[layer].numel());
        if (copies is not null)
            copies.Copy(to, from, count);
        else
            Buffer.MemoryCopy((void*)from, (void*)to, count, count);
    }

    public override void Dispose()
    {
        while (layers.Count > 0)
            RemoveLast();
    }
}
