using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>
/// The way of weights from files to a GPU: a few pinned buffers in turn, each filled from the file while the ones before it are on their way.
/// Takes as much host memory for any model; what is done with a weight on the device goes on meanwhile.
/// </summary>
internal sealed class Staging : IDisposable
{
    public const long SlotBytes = 32 << 20;
    public const int Slots = 4;

    private readonly nint[] slots = new nint[Slots];
    private readonly Cuda.Event[] sent = new Cuda.Event[Slots];
    private int next;

    public Staging()
    {
        for (var i = 0; i < Slots; i++)
            (slots[i], sent[i]) = (Cuda.AllocatePinned(SlotBytes), new Cuda.Event());
    }

    /// <summary>A tensor of a file on the device, in its stored type.</summary>
    public Tensor Read(SafeTensors file, string name, Device device)
    {
        var stored = file.Find(name);
        var tensor = empty(stored.Shape, file.TypeOf(stored), device);
        var (bytes, address) = (stored.To - stored.From, Aten.DataPointer(tensor));
        for (long at = 0; at < bytes; at += SlotBytes, next = (next + 1) % Slots)
        {
            var count = Math.Min(SlotBytes, bytes - at);
            sent[next].Wait();
            file.Read(stored, at, count, slots[next]);
            Cuda.CopyToDevice(address + (nint)at, slots[next], count);
            sent[next].Record();
        }
        return tensor;
    }

    public void Dispose()
    {
        for (var i = 0; i < Slots; i++)
        {
            sent[i].Wait();
            sent[i].Dispose();
            Cuda.FreePinned(slots[i]);
        }
    }
}
