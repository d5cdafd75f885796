using Memopt.Core;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Memory;

/// <summary>Frozen weights of some layers kept in host memory, or in a file where that is too small, and brought to
/// the device for each use. Two slots on the device take turns: while one streamed layer is computed, the next in the
/// direction of travel arrives in the other. The layers know nothing of it: their tensors are views of the slots.
/// </summary>
internal sealed class LayerStream : IDisposable
{
    private const int Slots = 2,
        Alignment = 256,
        Pieces = 4,
        Piece = 32 << 20;

    private readonly Device device;
    private readonly Cuda.Stream? copies;
    private readonly Cuda.Event? queued;
    private readonly Slot[] slots = new Slot[Slots];
    private readonly List<Streamed> streamed = [];
    private readonly FileStream? file;
    private readonly PinnedRing? pieces;
    private readonly int layers;
    private long slotBytes;
    private bool disposed;

    /// <param name="layers">Of the model.</param>
    /// <param name="device">Where they are computed.</param>
    /// <param name="spill">A file for the weights, made and removed here; null keeps them in host memory.</param>
    public LayerStream(int layers, Device device, string? spill = null)
    {
        (this.layers, this.device) = (layers, device);
        if (device.type == DeviceType.CUDA)
            (copies, queued) = (new(), new());
        for (var i = 0; i < Slots; i++)
            slots[i] = copies is null ? new() : new() { Arrived = new(), Free = new() };
        if (spill is null)
            return;
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(spill))!);
        file = new FileStream(
            spill,
            new FileStreamOptions
            {
                Mode = FileMode.Create,
                Access = FileAccess.ReadWrite,
                BufferSize = 0,
                Options = FileOptions.DeleteOnClose,
            }
        );
        pieces = copies is null ? null : new(Pieces, Piece);
    }

    /// <summary>Layers that are streamed.</summary>
    public int Count => streamed.Count;

    /// <summary>Bytes of the buffers, or of the file, that hold their weights.</summary>
    public long Bytes => streamed.Sum(layer => layer.Bytes);

    /// <summary>Bytes of their tensors, which are views of the slots.</summary>
    public long ViewBytes => streamed.Sum(layer => layer.Parts.Sum(part => part.Bytes));

    /// <summary>Bytes of the slots on the device.</summary>
    public long SlotBytes => slots.Sum(slot => slot.Buffer?.numel() ?? 0);

    /// <summary>Moves a layer's frozen weights out; called for layers in rising order while a model is
    /// loaded.</summary>
    public void Add(DecoderLayer layer)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var places = layer.Linears.SelectMany(linear => linear.Frozen).ToList();
        if (places.Count == 0)
            throw new UserFault(
                "Weights that are trained cannot be streamed.",
                next: "set memory.streamLayers to 0 or leave it out, or train an adapter"
            );
        long at = 0;
        var parts = places
            .Select(slot =>
            {
                var tensor = slot.Get();
                var part = new Part(slot, at, tensor.shape, tensor.dtype, tensor.numel() * tensor.element_size());
                at += (part.Bytes + Alignment - 1) / Alignment * Alignment;
                return part;
            })
            .ToList();
        var moved = new Streamed(layer.Index, parts, at, file?.Length ?? 0, file is null ? Host(at) : null);
        if (file is not null)
            file.SetLength(moved.Offset + at);
        try
        {
            foreach (var part in parts)
                MoveOut(moved, part, part.Place.Get().contiguous());
            copies?.Wait();
        }
        catch
        {
            moved.Free();
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
    public void Extend(Decoder model, int count)
    {
        foreach (
            var index in Rung.Streamed(layers, count)
                .Where(index => streamed.All(layer => layer.Layer != index))
                .ToList()
        )
        {
            if (Count < count)
                Add(model.layers[index]);
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

    public void Dispose()
    {
        if (disposed)
            return;
        disposed = true;
        copies?.Dispose();
        queued?.Dispose();
        foreach (var slot in slots)
        {
            slot.Arrived?.Dispose();
            slot.Free?.Dispose();
            slot.Buffer?.Dispose();
        }
        foreach (var layer in streamed)
            layer.Free();
        pieces?.Dispose();
        file?.Dispose();
    }

    /// <summary>Sees to it that a layer's weights are there, and says which are to come next.</summary>
    /// <param name="layer">About to be run.</param>
    /// <param name="direction">1: the next is above, -1: below, 0: above, and after the last the first again.</param>
    private int? EnsureResident(int layer, int direction)
    {
        var index = streamed.FindIndex(other => other.Layer == layer);
        if (index < 0)
            return null;
        if (slots[index % Slots].Holds != layer)
        {
            slots[index % Slots].Free?.Record();
            Fetch(index);
        }
        slots[index % Slots].Arrived?.MakeComputeWait();
        var next = direction == 0 ? (index + 1) % Count : index + direction;
        if (
            copies is null
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
        var to = Aten.DataPointer(slot.Buffer!);
        if (layer.Host is { } host)
        {
            copies!.ToDevice(to, Aten.DataPointer(host), layer.Bytes);
        }
        else if (copies is null)
        {
            Read(layer.Offset, layer.Bytes, to);
        }
        else
        {
            for (long at = 0; at < layer.Bytes; at += Piece)
            {
                var count = Math.Min(Piece, layer.Bytes - at);
                var piece = pieces!.Next();
                Read(layer.Offset + at, count, piece.Address);
                copies.ToDevice(to + (nint)at, piece.Address, count);
                copies.Record(piece.Copied);
            }
        }
        if (slot.Arrived is not null)
            copies!.Record(slot.Arrived);
        slot.Holds = layer.Layer;
    }

    /// <summary>Slots as large as the largest layer, and every layer's tensors as views of the slot whose turn is its
    /// own.</summary>
    private void Bind()
    {
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
                part.Place.Put(
                    (part.Type == uint8 ? bare : Aten.Call("aten::view", "dtype", [bare, (long)part.Type], 1)[0]).view(
                        part.Shape
                    )
                );
            }
        }
    }

    private void MoveOut(Streamed layer, Part part, Tensor tensor)
    {
        var from = Aten.DataPointer(tensor);
        if (layer.Host is { } host)
        {
            copies!.WaitForCompute(queued!);
            copies.ToHost(Aten.DataPointer(host) + (nint)part.Offset, from, part.Bytes);
            return;
        }
        for (long at = 0; at < part.Bytes; at += Piece)
        {
            var count = Math.Min(Piece, part.Bytes - at);
            var address = from + (nint)at;
            if (copies is not null)
            {
                var piece = pieces!.Next();
                copies.WaitForCompute(queued!);
                copies.ToHost(piece.Address, address, count);
                copies.Wait();
                address = piece.Address;
            }
            Write(layer.Offset + part.Offset + at, count, address);
        }
    }

    private unsafe void Write(long offset, long count, nint from)
    {
        try
        {
            RandomAccess.Write(file!.SafeFileHandle, new ReadOnlySpan<byte>((void*)from, (int)count), offset);
        }
        catch (IOException e)
        {
            throw new UserFault(
                $"The streamed weights cannot be written to {file!.Name}.",
                found: e.Message,
                next: "free some space there, or give the run more host memory (memory.hostBudgetGiB)",
                inner: e
            )
            {
                Failed = true,
            };
        }
    }

    private void Read(long offset, long count, nint to) =>
        FileRead.Into(file!.SafeFileHandle, offset, count, to, file.Name);

    private static Tensor Host(long bytes)
    {
        var host = empty([bytes], uint8, CPU);
        Cuda.Pin(Aten.DataPointer(host), bytes);
        return host.DetachFromDisposeScope();
    }

    /// <summary>A tensor's place in its layer's bytes.</summary>
    private sealed record Part(TensorSlot Place, long Offset, long[] Shape, ScalarType Type, long Bytes);

    private sealed record Streamed(int Layer, IReadOnlyList<Part> Parts, long Bytes, long Offset, Tensor? Host)
    {
        public void Free()
        {
            if (Host is null)
                return;
            Cuda.Unpin(Aten.DataPointer(Host));
            Host.Dispose();
        }
    }

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
