using Memopt.Core;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>Weights of some layers kept in a store and brought to the device for each use. Two slots on the device take
/// turns: while one streamed layer is computed, the next in the direction of travel arrives in the other. The layers
/// know nothing of it: their tensors are views of the slots. Ranks may divide the bytes of each layer: a rank stores
/// its slice, and the ranks gather the layer into the slot (ZeRO-3; Rajbhandari et al. 2020, arXiv 1910.02054). Frozen
/// weights stay as they are; of trained ones the optimizer writes the slices.</summary>
internal sealed class LayerStream : IDisposable
{
    private const int Slots = 2,
        Alignment = 256;

    private readonly Device device;
    private readonly LayerStore store;
    private readonly IProcessGroup? group;
    private readonly Cuda.Stream? copies;
    private readonly Slot[] slots = new Slot[Slots];
    private readonly List<Streamed> streamed = [];
    private readonly int layers;
    private long slotBytes;
    private bool disposed;

    /// <param name="layers">Of the whole model.</param>
    /// <param name="device">Where they are computed.</param>
    /// <param name="store">Holds the weights; disposed with the stream.</param>
    /// <param name="group">The ranks that divide each layer; null where each has all of it. Then all layers are
    /// streamed.</param>
    public LayerStream(int layers, Device device, LayerStore store, IProcessGroup? group = null)
    {
        (this.layers, this.device, this.store, this.group) = (layers, device, store, group);
        if (device.type == DeviceType.CUDA)
            copies = new();
        for (var i = 0; i < Slots; i++)
            slots[i] = copies is null ? new() : new() { Arrived = new(), Free = new() };
    }

    /// <summary>Layers that are streamed.</summary>
    public int Count => streamed.Count;

    /// <summary>Whether the weights are trained.</summary>
    public bool HoldsTrained { get; private set; }

    /// <summary>This rank's slice of a layer's weights, which the optimizer writes, in a type.</summary>
    public Tensor Slice(int layer, ScalarType type) =>
        View(((DeviceStore)store)[streamed.First(other => other.Layer == layer).Number], type);

    /// <summary>Forgets what is in the slots: the optimizer has written the slices.</summary>
    public void Invalidate()
    {
        foreach (var slot in slots)
            slot.Holds = -1;
    }

    /// <summary>Bytes that the store holds.</summary>
    public long Bytes => streamed.Sum(layer => layer.Slice);

    /// <summary>Whether the store is on the computing device.</summary>
    public bool OnDevice => store is DeviceStore;

    /// <summary>Bytes of their tensors, which are views of the slots.</summary>
    public long ViewBytes => streamed.Sum(layer => layer.Parts.Sum(part => part.Bytes));

    /// <summary>Bytes of the slots on the device.</summary>
    public long SlotBytes => slots.Sum(slot => slot.Buffer?.numel() ?? 0);

    /// <summary>Moves a layer's frozen weights out; called for layers in rising order while a model is
    /// loaded.</summary>
    public void Add(DecoderLayer layer)
    {
        var places = layer.Linears.SelectMany(linear => linear.Frozen).ToList();
        if (places.Count == 0)
            throw new UserFault(
                "Weights that are trained cannot be streamed.",
                next: "set memory.streamLayers to 0 or leave it out, or train an adapter"
            );
        Add(layer.Index, places, Alignment, Alignment);
    }

    /// <summary>Moves a layer's trained weights out, which the ranks divide. They lie as in the optimizer's
    /// arrays.</summary>
    /// <param name="unit">The layer's trained weights, in the compute type.</param>
    public void Add(TrainedUnit unit)
    {
        var size = unit.Parameters[0].Value.element_size();
        Add(
            unit.Layer!.Value,
            [.. unit.Parameters.Select(parameter => parameter.Slot)],
            size,
            size * TrainedUnit.SliceAlignment
        );
        foreach (var parameter in unit.Parameters)
            parameter.Train();
        HoldsTrained = true;
    }

    private void Add(int index, IReadOnlyList<TensorSlot> places, long alignment, long sliceAlignment)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        long at = 0;
        var parts = places
            .Select(slot =>
            {
                var tensor = slot.Get();
                var part = new Part(slot, at, tensor.shape, tensor.dtype, tensor.numel() * tensor.element_size());
                at += (part.Bytes + alignment - 1) / alignment * alignment;
                return part;
            })
            .ToList();
        var ranks = group?.Size ?? 1;
        var slice = (at + ranks * sliceAlignment - 1) / (ranks * sliceAlignment) * sliceAlignment;
        var moved = new Streamed(index, parts, store.Add(slice), slice, slice * ranks);
        try
        {
            foreach (var part in parts)
                MoveOut(moved, part, part.Place.Get().contiguous());
            store.Flush();
        }
        catch
        {
            store.RemoveLast();
            throw;
        }
        // They leave before the slots are made: what they took is where the slots go.
        foreach (var part in parts)
            part.Place.Put(empty([0], part.Type, device));
        streamed.Add(moved);
        streamed.Sort((a, b) => a.Layer - b.Layer);
        Bind();
    }

    /// <summary>Moves more layers out, until so many are.</summary>
    /// <param name="model">The model, or a stage of a pipeline, which moves those of them that it has.</param>
    /// <param name="count">Of the whole model.</param>
    public void Extend(Decoder model, int count)
    {
        var chosen = Rung.Streamed(layers, count).ToHashSet();
        var wanted = model.layers.Where(layer => chosen.Contains(layer.Index)).ToList();
        foreach (var layer in wanted.Where(layer => streamed.All(other => other.Layer != layer.Index)).ToList())
        {
            if (Count < wanted.Count)
                Add(layer);
        }
    }

    /// <summary>A layer whose weights are on the device before its forward and before its backward.</summary>
    public LayerForward Around(LayerForward run)
    {
        if (slots.Any(slot => slot.Buffer is null))
            Bind();
        return (layer, x, context) =>
        {
            var next = EnsureResident(layer.Index, context.NeedsGradient ? 1 : 0);
            var result = run(layer, x, context);
            Prefetch(next);
            return result.Backward is not { } backward
                ? result
                : result with
                {
                    Backward = (gradient, accumulateInto) =>
                    {
                        var below = EnsureResident(layer.Index, -1);
                        var g = backward(gradient, accumulateInto);
                        Prefetch(below);
                        return g;
                    },
                };
        };
    }

    /// <summary>Whether ranks divide the weights: then every rank gathers the layers in one order.</summary>
    public bool IsSharded => group is not null;

    /// <summary>How often a sharded layer was entered.</summary>
    public long Calls { get; private set; }

    /// <summary>Whether a layer is streamed.</summary>
    public bool Has(int layer) => streamed.Exists(other => other.Layer == layer);

    /// <summary>Brings a layer's weights as its forward or backward does, for other ranks that compute it.</summary>
    public void Enter(int layer) => EnsureResident(layer, 0);

    public void Dispose()
    {
        if (disposed)
            return;
        disposed = true;
        copies?.Dispose();
        foreach (var slot in slots)
        {
            slot.Arrived?.Dispose();
            slot.Free?.Dispose();
            slot.Buffer?.Dispose();
        }
        store.Dispose();
    }

    /// <summary>Sees to it that a layer's weights are there, and says which are to come next.</summary>
    /// <param name="layer">About to be run.</param>
    /// <param name="direction">1: the next is above, -1: below, 0: above, and after the last the first again.</param>
    private int? EnsureResident(int layer, int direction)
    {
        var index = streamed.FindIndex(other => other.Layer == layer);
        if (index < 0)
            return null;
        if (group is not null)
            Calls++;
        if (slots[index % Slots].Holds != layer)
        {
            slots[index % Slots].Free?.Record();
            Fetch(index);
        }
        slots[index % Slots].Arrived?.MakeComputeWait();
        var next = direction == 0 ? (index + 1) % Count : index + direction;
        // The ranks gather on the stream of the computation, which a gather ahead would hold up.
        if (
            copies is null
            || group is not null
            || next < 0
            || next >= Count
            || next % Slots == index % Slots
            || slots[next % Slots].Holds == streamed[next].Layer
        )
            return null;
        slots[next % Slots].Free!.Record(); // who is in that slot has been computed by then
        return next;
    }

    /// <summary>Begins to bring a layer while the one that was entered is computed; called when that is queued, so that
    /// reading a file holds nothing up.</summary>
    private void Prefetch(int? next)
    {
        if (next is { } index)
            Fetch(index);
    }

    private void Fetch(int index)
    {
        var (layer, slot) = (streamed[index], slots[index % Slots]);
        copies?.WaitFor(slot.Free!);
        var first = (group?.Rank ?? 0) * layer.Slice;
        store.Read(layer.Number, Aten.DataPointer(slot.Buffer!) + (nint)first, copies);
        if (slot.Arrived is not null)
            copies!.Record(slot.Arrived);
        if (group is not null)
        {
            slot.Arrived?.MakeComputeWait();
            using var whole = slot.Buffer!.narrow(0, 0, layer.Bytes);
            using var slice = slot.Buffer.narrow(0, first, layer.Slice);
            group.AllGather(slice, whole);
        }
        slot.Holds = layer.Layer;
    }

    /// <summary>Slots as large as the largest layer, and every layer's tensors as views of the slot whose turn is its
    /// own.</summary>
    public void Bind()
    {
        if (streamed.Count == 0) // a stage of a pipeline without such a layer
            return;
        var bytes = streamed.Max(layer => layer.Bytes);
        if (bytes > slotBytes)
        {
            slotBytes = bytes;
            foreach (var slot in slots)
            {
                slot.Buffer?.Dispose();
                slot.Buffer = null;
            }
        }
        foreach (var slot in slots)
        {
            slot.Buffer ??= empty([slotBytes], uint8, device).DetachFromDisposeScope();
            slot.Holds = -1;
        }
        for (var i = 0; i < Count; i++)
        {
            foreach (var part in streamed[i].Parts)
            {
                using var scope = NewDisposeScope();
                var bare = slots[i % Slots].Buffer!.narrow(0, part.Offset, part.Bytes);
                part.Place.Put(View(bare, part.Type).view(part.Shape));
            }
        }
    }

    private static Tensor View(Tensor bytes, ScalarType type) =>
        type == uint8 ? bytes.alias() : Aten.Call("aten::view", "dtype", [bytes, (long)type], 1)[0];

    /// <summary>Stores what of a tensor is in this rank's slice of the layer.</summary>
    private void MoveOut(Streamed layer, Part part, Tensor tensor)
    {
        var first = (group?.Rank ?? 0) * layer.Slice;
        var from = Math.Max(part.Offset, first);
        var to = Math.Min(part.Offset + part.Bytes, first + layer.Slice);
        if (from < to)
            store.Write(layer.Number, from - first, Aten.DataPointer(tensor) + (nint)(from - part.Offset), to - from);
    }

    /// <summary>A tensor's place in its layer's bytes.</summary>
    private sealed record Part(TensorSlot Place, long Offset, long[] Shape, ScalarType Type, long Bytes);

    /// <param name="Layer">Index of the layer in the model.</param>
    /// <param name="Parts">Its tensors.</param>
    /// <param name="Number">Its number in the store.</param>
    /// <param name="Slice">Bytes that the store holds of it.</param>
    /// <param name="Bytes">Of the whole layer, padded to equal slices.</param>
    private sealed record Streamed(int Layer, IReadOnlyList<Part> Parts, int Number, long Slice, long Bytes);

    private sealed class Slot
    {
        public Tensor? Buffer;
        public int Holds = -1;

        /// <summary>All of it has come.</summary>
        public Cuda.Event? Arrived { get; init; }

        /// <summary>What was in it before has been used.</summary>
        public Cuda.Event? Free { get; init; }
    }
}
