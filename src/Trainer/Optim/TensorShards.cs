using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>The trained weights of a rank as parts of the whole ones, where tensor parallel ranks share the matrices:
/// sums the gradients of which each rank has a part, counts each weight once in a norm, and translates between a rank's
/// arrays and arrays of the whole weights, which a checkpoint holds.</summary>
/// <param name="units">The trained weights of this rank.</param>
/// <param name="layout">How the data parallel ranks divide them.</param>
/// <param name="tensor">The ranks that share the matrices.</param>
/// <param name="data">The ranks that have the same weights.</param>
internal sealed class TensorShards(
    IReadOnlyList<TrainedUnit> units,
    ShardLayout layout,
    IProcessGroup tensor,
    IProcessGroup data
)
{
    /// <summary>The whole weights in one array.</summary>
    public ShardLayout WholeLayout { get; } =
        new([.. units.Select(unit => unit.Parameters.Sum(parameter => parameter.WholeCount))], 1);

    /// <summary>Whether this rank writes what <see cref="Gather"/> gives.</summary>
    public bool IsMain => tensor.Rank == 0 && data.Rank == 0;

    /// <summary>Sums over the ranks the gradients of which each has a part.</summary>
    public void ReduceGradient()
    {
        if (tensor.Size == 1)
            return;
        foreach (var parameter in units.SelectMany(unit => unit.Parameters))
        {
            if (parameter.Slice is not { IsPartial: true } slice)
                continue;
            using var scope = NewDisposeScope();
            parameter.Grad!.copy_(slice.Reduce(parameter.Grad, tensor));
        }
    }

    /// <summary>Squared norm over all ranks of an array of this rank's shard.</summary>
    /// <param name="squared">Squared norm of a part of the array, fp64, ().</param>
    /// <param name="shard">The array.</param>
    public Tensor SquaredNorm(Func<Tensor, Tensor> squared, Tensor shard)
    {
        using var scope = NewDisposeScope();
        var sum = squared(shard);
        foreach (var (from, count) in Unowned())
            sum.sub_(squared(shard.narrow(0, from, count)));
        if (layout.Ranks > 1)
            data.AllReduce(sum);
        tensor.AllReduce(sum);
        return sum.MoveToOuterDisposeScope();
    }

    /// <summary>An array of the whole weights from the shards of all ranks, on the host of the main rank; null on the
    /// others. All ranks call it.</summary>
    /// <param name="shard">This rank's shard of the array.</param>
    /// <param name="device">Where the ranks communicate.</param>
    public Tensor? Gather(Tensor shard, Device device)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var whole = IsMain ? empty([WholeLayout.Count], float32) : null;
        var buffer = empty(
            [layout.Units.Select(unit => unit.Slice).DefaultIfEmpty().Max() * layout.Ranks],
            float32,
            device
        );
        long at = 0;
        foreach (var (unit, place) in units.Zip(layout.Units))
        {
            var gathered = buffer.narrow(0, 0, place.Slice * layout.Ranks);
            var own = gathered.narrow(0, First(place), place.Slice);
            own.copy_(shard.narrow(0, place.Shard, place.Slice));
            if (layout.Ranks > 1)
                data.AllGather(own, gathered);
            foreach (var (parameter, part) in unit.Slices(gathered))
            {
                using var inner = NewDisposeScope();
                var value = parameter.Slice?.Gather(part, tensor) ?? part;
                whole?.narrow(0, at, value.numel()).copy_(value.view(-1));
                at += value.numel();
            }
        }
        return whole?.MoveToOuterDisposeScope();
    }

    /// <summary>Takes this rank's shard of an array of the whole weights.</summary>
    /// <param name="whole">The array.</param>
    /// <param name="shard">Receives the shard.</param>
    public void Scatter(Tensor whole, Tensor shard)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        foreach (var ((unit, place), first) in units.Zip(layout.Units).Zip(WholeLayout.Units))
        {
            using var inner = NewDisposeScope();
            var local = zeros([place.Slice * layout.Ranks], float32);
            var at = first.Whole;
            foreach (var (parameter, part) in unit.Slices(local))
            {
                var value = whole.narrow(0, at, parameter.WholeCount).view([.. parameter.WholeShape]);
                part.copy_(parameter.Slice?.Take(value) ?? value);
                at += value.numel();
            }
            shard.narrow(0, place.Shard, place.Slice).copy_(local.narrow(0, First(place), place.Slice));
        }
    }

    /// <summary>The parameters with the places of their whole values in an array of the whole weights.</summary>
    public IEnumerable<(Parameter Parameter, Tensor Value)> Slices(Tensor whole)
    {
        long at = 0;
        foreach (var parameter in units.SelectMany(unit => unit.Parameters))
        {
            yield return (parameter, whole.narrow(0, at, parameter.WholeCount).view([.. parameter.WholeShape]));
            at += parameter.WholeCount;
        }
    }

    /// <summary>The stretches of this rank's shard that other ranks have too and count.</summary>
    private IEnumerable<(long From, long Count)> Unowned()
    {
        foreach (var (unit, place) in units.Zip(layout.Units))
        {
            var (begin, end) = (First(place), First(place) + place.Slice);
            long at = 0;
            foreach (var parameter in unit.Parameters)
            {
                foreach (var (from, count) in Unowned(parameter))
                {
                    var (first, last) = (Math.Max(begin, at + from), Math.Min(end, at + from + count));
                    if (first < last)
                        yield return (place.Shard + first - begin, last - first);
                }
                at += parameter.Count;
            }
        }
    }

    /// <summary>The same of a parameter's elements.</summary>
    private static IEnumerable<(long From, long Count)> Unowned(Parameter parameter)
    {
        if (parameter.Slice is not { } slice || slice.Ranges.All(range => range.IsOwned))
            yield break;
        // A dimension with shared ranges is the first.
        var row = parameter.Count / parameter.Shape[0];
        long at = 0;
        foreach (var range in slice.Ranges)
        {
            if (!range.IsOwned)
                yield return (at * row, range.Length * row);
            at += range.Length;
        }
    }

    /// <summary>Where this rank's slice of a unit begins in the unit.</summary>
    private long First(ShardedUnit place) => layout.Ranks > 1 ? place.Slice * data.Rank : 0;
}
