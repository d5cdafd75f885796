using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>
/// Holds tensors in pinned host memory. Copies run beside the computation: out while the layer that keeps them is computed, back while the
/// layer above is. The device has what one layer keeps on the way out, and two layers' on the way back.
/// </summary>
internal sealed class ActivationOffload : ISavedTensors, IDisposable
{
    // What is smaller is not worth a copy.
    private const long Least = 64 << 10;

    private readonly Cuda.Stream copies = new();
    private readonly Cuda.Event queued = new();
    private readonly List<Pinned> idle = [];
    private readonly List<OffloadedTensor> leaving = [];
    private readonly SortedDictionary<int, List<OffloadedTensor>> away = [];
    private long bytes;

    /// <summary>Most bytes of pinned memory that it has held.</summary>
    public long PeakBytes { get; private set; }

    public ISavedTensor Pack(Tensor tensor, int layer)
    {
        var bytes = tensor.numel() * tensor.element_size();
        Settle(layer);
        if (bytes < Least || !tensor.is_contiguous())
            return InPlaceTensors.Instance.Pack(tensor, layer);
        var kept = new OffloadedTensor(this, tensor.DetachFromDisposeScope(), layer, Rent(bytes));
        copies.WaitForCompute(queued);
        copies.ToHost(kept.Room.Address, Aten.DataPointer(tensor), bytes);
        copies.Record(kept.Room.Moved);
        leaving.Add(kept);
        if (!away.TryGetValue(layer, out var list))
            away[layer] = list = [];
        list.Add(kept);
        return kept;
    }

    public void Dispose()
    {
        copies.Dispose();
        queued.Dispose();
        foreach (var room in idle)
            room.Dispose();
    }

    /// <summary>Frees on the device what the layers before have kept. Their copies had a layer's time; what is computed next waits for the rest.</summary>
    private void Settle(int layer)
    {
        foreach (var kept in leaving.Where(kept => kept.Layer < layer))
            kept.Leave();
        leaving.RemoveAll(kept => kept.Layer < layer);
    }

    /// <summary>Begins to bring what the nearest layer below keeps.</summary>
    private void Prefetch(int layer)
    {
        foreach (var kept in away.LastOrDefault(pair => pair.Key < layer).Value ?? [])
            kept.Fetch();
    }

    private void Forget(OffloadedTensor kept)
    {
        leaving.Remove(kept);
        idle.Add(kept.Room);
        if (away.TryGetValue(kept.Layer, out var list) && list.Remove(kept) && list.Count == 0)
            away.Remove(kept.Layer);
    }

    /// <summary>The smallest idle room that is large enough. If all idle room is too small, some of it makes place: lengths grow, and the room with them.</summary>
    private Pinned Rent(long bytes)
    {
        var room = idle.Where(room => room.Bytes >= bytes).MinBy(room => room.Bytes);
        if (room is null)
        {
            if (idle.Count > 0)
            {
                copies.Wait();
                var small = idle.MaxBy(other => other.Bytes)!;
                idle.Remove(small);
                small.Dispose();
                this.bytes -= small.Bytes;
            }
            room = new Pinned(bytes);
            PeakBytes = Math.Max(PeakBytes, this.bytes += bytes);
        }
        else
        {
            idle.Remove(room);
        }
        return room;
    }

    /// <summary>Host memory for one tensor, and the event that its last copy is done.</summary>
    private sealed class Pinned(long bytes) : IDisposable
    {
        public long Bytes => bytes;

        public nint Address { get; } = Cuda.AllocatePinned(bytes);

        public Cuda.Event Moved { get; } = new();

        public void Dispose()
        {
            Cuda.FreePinned(Address);
            Moved.Dispose();
        }
    }

    private sealed class OffloadedTensor(ActivationOffload keeper, Tensor tensor, int layer, Pinned room) : ISavedTensor
    {
        private readonly (long[] Shape, ScalarType Type, Device Device, long Bytes) kind = (tensor.shape, tensor.dtype, tensor.device, tensor.numel() * tensor.element_size());
        private Tensor? here = tensor;
        private bool done;

        public int Layer => layer;

        public Pinned Room => room;

        public void Leave()
        {
            room.Moved.MakeComputeWait();
            here!.Dispose();
            here = null;
        }

        public void Fetch()
        {
            if (here is not null)
                return;
            here = empty(kind.Shape, kind.Type, kind.Device).DetachFromDisposeScope();
            keeper.copies.WaitForCompute(keeper.queued);                        // its memory may have been another's a moment ago
            keeper.copies.ToDevice(Aten.DataPointer(here), room.Address, kind.Bytes);
            keeper.copies.Record(room.Moved);
        }

        public Tensor Unpack(DisposeScope owner)
        {
            Fetch();
            room.Moved.MakeComputeWait();
            done = true;
            keeper.Forget(this);
            owner.Attach(here!);
            keeper.Prefetch(layer);
            return here!;
        }

        public void Dispose()
        {
            if (done)
                return;
            done = true;
            room.Moved.MakeComputeWait();
            here?.Dispose();
            keeper.Forget(this);
        }
    }
}
