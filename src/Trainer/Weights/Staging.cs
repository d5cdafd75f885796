using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>The way of weights from files to a GPU: a few pinned buffers in turn, each filled from the file while the
/// ones before it are on their way. Takes as much host memory for any model; what is done with a weight on the device
/// goes on meanwhile.
/// </summary>
internal sealed class Staging : IDisposable
{
    public const long SlotBytes = 32 << 20;
    public const int Slots = 4;

    /// <summary>Most bytes that a staging has held: what it allocated, for as long as a model was loaded.</summary>
    public static long Bytes { get; private set; }

    private readonly PinnedRing slots = new(Slots, SlotBytes);

    public Staging() => Bytes = Math.Max(Bytes, Slots * SlotBytes);

    /// <summary>A tensor of a file on the device, in a type or else the stored one. What is converted is so a slot at a
    /// time: the whole never lies there twice.</summary>
    public Tensor Read(SafeTensors file, string name, Device device, ScalarType? wanted)
    {
        var stored = file.Find(name);
        var type = file.TypeOf(stored);
        var tensor = empty(stored.Shape, wanted ?? type, device);
        using var scope = NewDisposeScope();
        var (bytes, size, same) = (stored.To - stored.From, type.ElementSize(), tensor.dtype == type);
        var flat = tensor.view(-1);
        for (long at = 0; at < bytes; at += SlotBytes)
        {
            using var inner = NewDisposeScope();
            var count = Math.Min(SlotBytes, bytes - at);
            var slot = slots.Next();
            file.Read(stored, at, count, slot.Address);
            var part = same ? null : empty([count / size], type, device);
            Cuda.CopyToDevice(
                part is null ? Aten.DataPointer(tensor) + (nint)at : Aten.DataPointer(part),
                slot.Address,
                count
            );
            slot.Copied.Record();
            if (part is not null)
                flat.narrow(0, at / size, count / size).copy_(part);
        }
        return tensor;
    }

    public void Dispose() => slots.Dispose();
}
