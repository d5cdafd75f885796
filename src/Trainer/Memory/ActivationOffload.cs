using Memopt.Trainer.Autograd;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>Holds tensors in pinned host memory. Copies run beside the computation: out while the layer that keeps
/// them is computed, back while the layer above is. The device has the saved tensors of one layer in forward, and of
/// two layers in backward.
/// </summary>
internal sealed class ActivationOffload : ISavedTensors, IDisposable
{
    // What is smaller is not worth a copy.
    private const long Least = 64 << 10;

    private readonly Cuda.Stream copies = new();
    private readonly Cuda.Event queued = new();
    private readonly List<PinnedBuffer> idle = [];
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
        copies.ToHost(kept.Buffer.Address, Aten.DataPointer(tensor), bytes);
        copies.Record(kept.Buffer.Copied);
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
        foreach (var buffer in idle)
            buffer.Dispose();
    }

    /// <summary>Frees on the device what the layers before have kept. Their copies had a layer's time; what is computed
    /// next waits for the rest.</summary>
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
        idle.Add(kept.Buffer);
        if (away.TryGetValue(kept.Layer, out var list) && list.Remove(kept) && list.Count == 0)
            away.Remove(kept.Layer);
    }

    /// <summary>The smallest idle buffer that is large enough. If all idle buffer is too small, some of it makes place:
    /// lengths grow, and the buffer with them.</summary>
    private PinnedBuffer Rent(long bytes)
    {
        var buffer = idle.Where(buffer => buffer.Bytes >= bytes).MinBy(buffer => buffer.Bytes);
        if (buffer is null)
        {
            if (idle.Count > 0)
            {
                copies.Wait();
                var small = idle.MaxBy(other => other.Bytes)!;
                idle.Remove(small);
                small.Dispose();
                this.bytes -= small.Bytes;
            }
            buffer = new PinnedBuffer(bytes);
            PeakBytes = Math.Max(PeakBytes, this.bytes += bytes);
        }
        else
        {
            idle.Remove(buffer);
        }
        return buffer;
    }

    private sealed class OffloadedTensor(ActivationOffload offload, Tensor tensor, int layer, PinnedBuffer buffer)
        : ISavedTensor
    {
        private readonly (long[] Shape, ScalarType Type, Device Device, long Bytes) kind = (
            tensor.shape,
            tensor.dtype,
            tensor.device,
            tensor.numel() * tensor.element_size()
        );
        private Tensor? here = tensor;
        private bool done;

        public int Layer => layer;

        public PinnedBuffer Buffer => buffer;

        public void Leave()
        {
            buffer.Copied.MakeComputeWait();
            here!.Dispose();
            here = null;
        }

        public void Fetch()
        {
            if (here is not null)
                return;
            here = empty(kind.Shape, kind.Type, kind.Device).DetachFromDisposeScope();
            offload.copies.WaitForCompute(offload.queued); // its memory may have been another's a moment ago
            offload.copies.ToDevice(Aten.DataPointer(here), buffer.Address, kind.Bytes);
            offload.copies.Record(buffer.Copied);
        }

        public Tensor Unpack(DisposeScope owner)
        {
            Fetch();
            buffer.Copied.MakeComputeWait();
            done = true;
            offload.Forget(this);
            owner.Attach(here!);
            offload.Prefetch(layer);
            return here!;
        }

        public void Dispose()
        {
            if (done)
                return;
            done = true;
            buffer.Copied.MakeComputeWait();
            here?.Dispose();
            offload.Forget(this);
        }
    }
}
