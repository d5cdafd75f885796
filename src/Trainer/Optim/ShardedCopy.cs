using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Memory;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>The weights in the compute type, which products read, where the ranks divide the fp32 values. A unit is
/// whole on every rank, gathered after each step (ZeRO-1, ZeRO-2); or each rank has its slice, and the layers' stream
/// gathers the unit when a pass comes to it (ZeRO-3).</summary>
internal sealed class ShardedCopy : IDisposable
{
    private readonly IReadOnlyList<TrainedUnit> units;
    private readonly ShardLayout layout;
    private readonly IProcessGroup group;
    private readonly LayerStream? stream;
    private readonly List<UnitCopy> copies = [];

    /// <summary>Takes this rank's shard of the parameters' values. The parameters become slices of the copy, but for
    /// those of units in the stream.</summary>
    /// <param name="units">The trained weights.</param>
    /// <param name="layout">How the ranks divide them.</param>
    /// <param name="group">The ranks.</param>
    /// <param name="compute">Type of the copy.</param>
    /// <param name="device">Where it lies.</param>
    /// <param name="value">Receives the shard, fp32.</param>
    /// <param name="stream">Holds the slices of the layers; null where every unit is whole.</param>
    public ShardedCopy(
        IReadOnlyList<TrainedUnit> units,
        ShardLayout layout,
        IProcessGroup group,
        ScalarType compute,
        Device device,
        Tensor value,
        LayerStream? stream
    )
    {
        (this.units, this.layout, this.group, this.stream) = (units, layout, group, stream);
        bool IsStreamed(TrainedUnit unit) => stream is not null && unit.Layer is { } layer && stream.Has(layer);
        var whole = units.Zip(layout.Units).Where(pair => !IsStreamed(pair.First)).Sum(pair => pair.Second.Slice);
        Replicated = zeros([whole * layout.Ranks], compute, device).DetachFromDisposeScope();
        long at = 0;
        foreach (var (unit, place) in units.Zip(layout.Units))
        {
            using var scope = NewDisposeScope();
            if (IsStreamed(unit))
            {
                TakeSlice(stream!.Slice(unit.Layer!.Value, compute), place, value);
                continue;
            }
            var array = Replicated.narrow(0, at, place.Slice * layout.Ranks);
            at += array.numel();
            TakeWhole(unit, place, array, value);
        }
    }

    /// <summary>What every rank has of it.</summary>
    public Tensor Replicated { get; }

    /// <summary>The stretches of this rank's shard, each with its copy.</summary>
    public IEnumerable<(long First, long Length, Tensor? Copy)> Slices =>
        copies.Zip(layout.Units, (own, place) => (place.Shard, place.Slice, (Tensor?)own.Slice));

    /// <summary>Makes the copy that of values which were read from a checkpoint. All ranks call it.</summary>
    public void Sync(Tensor value)
    {
        foreach (var (first, length, slice) in Slices)
            slice!.copy_(value.narrow(0, first, length));
        Gather();
    }

    /// <summary>Makes it whole on every rank, of which each has moved its slices. All ranks call it.</summary>
    public void Gather()
    {
        stream?.Invalidate();
        foreach (var (whole, slice) in copies)
        {
            if (whole is not null)
                group.AllGather(slice, whole);
        }
    }

    /// <summary>Makes the parameters slices of it again, after they were bound to other tensors.</summary>
    public void Bind()
    {
        stream?.Bind();
        foreach (var (unit, (whole, _)) in units.Zip(copies))
        {
            if (whole is null)
                continue;
            foreach (var (parameter, slice) in unit.Slices(whole))
                parameter.Bind(slice);
        }
    }

    public void Dispose()
    {
        foreach (var (whole, slice) in copies)
        {
            whole?.Dispose();
            slice.Dispose();
        }
        Replicated.Dispose();
    }

    private void TakeSlice(Tensor slice, ShardedUnit place, Tensor value)
    {
        copies.Add(new(null, slice.DetachFromDisposeScope()));
        var count = Math.Clamp(place.Count - place.Slice * group.Rank, 0, place.Slice); // without the padding
        value.narrow(0, place.Shard, count).copy_(slice.narrow(0, 0, count));
    }

    private void TakeWhole(TrainedUnit unit, ShardedUnit place, Tensor array, Tensor value)
    {
        var whole = zeros([array.numel()], float32, array.device);
        foreach (var (parameter, part) in unit.Slices(whole))
            part.copy_(parameter.Value);
        var first = place.Slice * group.Rank;
        value.narrow(0, place.Shard, place.Slice).copy_(whole.narrow(0, first, place.Slice));
        foreach (var (parameter, part) in unit.Slices(array))
            parameter.MoveTo(part);
        copies.Add(new(array.DetachFromDisposeScope(), array.narrow(0, first, place.Slice).DetachFromDisposeScope()));
    }

    /// <param name="Whole">The unit on every rank; null for one in the stream.</param>
    /// <param name="Slice">What this rank moves of it.</param>
    private readonly record struct UnitCopy(Tensor? Whole, Tensor Slice);
}
