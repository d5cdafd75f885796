using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Models;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>Every rank holds the gradient of its shard alone (ZeRO-2). A unit's gradient is whole from the beginning to
/// the end of its backward; then the ranks add it up, and each keeps its slice.</summary>
internal sealed class ShardedGradient : Gradient
{
    private readonly Tensor shard;
    private readonly Dictionary<int, int> ofLayer = [];
    private readonly Dictionary<int, Tensor> open = [];
    private readonly int? root;

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
    }

    public override Tensor Own => shard;

    public override long Bytes => 4 * shard.numel();

    public override LayerForward Around(LayerForward run) =>
        (layer, x, context) =>
        {
            var result = run(layer, x, context);
            return result.Backward is not { } backward || Unit(layer.Index) is not { } unit
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

    public override bool ReducesInPass(int? layer) => Unit(layer) is not null;

    public override void ReduceNothing(int? layer)
    {
        var unit = Unit(layer)!.Value;
        using var nothing = zeros([Layout.Units[unit].Slice * Layout.Ranks], float32, shard.device);
        Add(nothing, unit);
    }

    public override void Abandon()
    {
        foreach (var unit in open.Keys.ToList())
            Close(unit);
    }

    public override void BeginMicroBatch()
    {
        if (root is { } unit)
            Begin(unit);
    }

    public override void EndMicroBatch()
    {
        if (root is { } unit)
            End(unit);
    }

    public override void Reduce() { }

    public override void Invalidate() => shard.fill_(double.NaN);

    public override void Zero()
    {
        Abandon();
        shard.zero_();
    }

    public override void Dispose()
    {
        Abandon();
        shard.Dispose();
    }

    private int? Unit(int? layer) =>
        layer is not { } index ? root
        : ofLayer.TryGetValue(index, out var unit) ? unit
        : null;

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

    private void Add(Tensor whole, int unit)
    {
        var place = Layout.Units[unit];
        using var scope = NewDisposeScope();
        var sum = empty([place.Slice], float32, shard.device);
        Calls++;
        Group.ReduceScatter(whole, sum);
        shard.narrow(0, place.Shard, place.Slice).add_(sum);
    }

    private void Close(int unit)
    {
        foreach (var parameter in Units[unit].Parameters)
            parameter.BindGradient(null);
        if (open.Remove(unit, out var whole))
            whole.Dispose();
    }
}
