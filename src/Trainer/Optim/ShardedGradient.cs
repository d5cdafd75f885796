using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Models;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>Every rank holds the gradient of its shard alone (ZeRO-2). A unit's gradient is whole from the beginning to
/// the end of its backward; then the ranks add it up, and each keeps its slice. The ranks do so for every micro-batch
/// in one order: the layers from the last to the first, then the root.</summary>
internal sealed class ShardedGradient : Gradient
{
    private readonly Tensor shard;
    private readonly Dictionary<int, int> ofLayer = [];
    private readonly Dictionary<int, Tensor> open = [];
    private readonly List<int> order;
    private readonly int? root;
    private int reduced,
        microBatches;
    private bool rehearsal;

    public ShardedGradient(IReadOnlyList<TrainedUnit> units, ShardLayout layout, IProcessGroup group, Device device)
        : base(units, layout, group)
    {
        shard = zeros([layout.ShardSize], float32, device).DetachFromDisposeScope();
        for (var i = 0; i < units.Count; i++)
        {
            if (units[i].Layer is { } layer)
                ofLayer[layer] = i;
            else
                root = i;
        }
        order = [.. ofLayer.OrderByDescending(pair => pair.Key).Select(pair => pair.Value)];
        if (root is { } last)
            order.Add(last);
    }

    public override Tensor Own => shard;

    public override long Bytes => 4 * shard.numel();

    public override LayerForward Around(LayerForward run) =>
        (layer, x, context) =>
        {
            var result = run(layer, x, context);
            return result.Backward is not { } backward || !ofLayer.TryGetValue(layer.Index, out var unit)
                ? result
                : result with
                {
                    Backward = (gradient, accumulateInto) =>
                    {
                        Begin(unit);
                        var g = backward(gradient, accumulateInto);
                        End(unit);
                        return g;
                    },
                };
        };

    public override void BeginMicroBatch(bool rehearsal)
    {
        this.rehearsal = rehearsal;
        if (root is { } unit)
            Begin(unit);
    }

    public override void EndMicroBatch()
    {
        if (root is { } unit)
            End(unit);
        reduced = 0;
        microBatches++;
    }

    public override void CatchUp(int microBatches)
    {
        Close();
        rehearsal = false;
        for (; this.microBatches < microBatches; this.microBatches++, reduced = 0)
        {
            while (reduced < order.Count)
                AddNothing();
        }
    }

    public override void CatchUpAbove(int layer)
    {
        Close();
        while (reduced < order.Count && Units[order[reduced]].Layer > layer)
            AddNothing();
    }

    public override void Reduce() => (reduced, microBatches) = (0, 0);

    public override void Invalidate() => shard.fill_(double.NaN);

    public override void Zero()
    {
        Close();
        (reduced, microBatches) = (0, 0);
        shard.zero_();
    }

    public override void Dispose()
    {
        Close();
        shard.Dispose();
    }

    private void Begin(int unit)
    {
        using var scope = NewDisposeScope();
        var whole = zeros([Layout.Units[unit].Slice * Layout.Ranks], float32, shard.device);
        open[unit] = whole.DetachFromDisposeScope();
        foreach (var (parameter, slice) in Units[unit].Slices(whole))
            parameter.BindGradient(slice);
    }

    private void End(int unit)
    {
        Add(open[unit], unit);
        Close(unit);
    }

    /// <summary>Takes part in the next sum with zeros.</summary>
    private void AddNothing()
    {
        var place = Layout.Units[order[reduced]];
        using var nothing = zeros([place.Slice * Layout.Ranks], float32, shard.device);
        Add(nothing, order[reduced]);
    }

    private void Add(Tensor whole, int unit)
    {
        var place = Layout.Units[unit];
        using var scope = NewDisposeScope();
        var sum = empty([place.Slice], float32, shard.device);
        if (!rehearsal)
        {
            if (order[reduced] != unit)
                throw new InvalidOperationException($"Unit {unit} is reduced in the place of unit {order[reduced]}.");
            Group.ReduceScatter(whole, sum);
            shard.narrow(0, place.Shard, place.Slice).add_(sum);
        }
        reduced++;
    }

    private void Close()
    {
        foreach (var unit in open.Keys.ToList())
            Close(unit);
    }

    private void Close(int unit)
    {
        foreach (var parameter in Units[unit].Parameters)
            parameter.BindGradient(null);
        if (open.Remove(unit, out var whole))
            whole.Dispose();
    }
}
