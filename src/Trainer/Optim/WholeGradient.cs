using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>Every rank holds the gradient of all weights. The ranks add it up once a step. Each gets the whole sum
/// (data parallel), or the part that its shard of the optimizer needs (ZeRO-1).</summary>
internal sealed class WholeGradient : Gradient
{
    private readonly Tensor whole;
    private readonly Tensor? shard;

    public WholeGradient(IReadOnlyList<TrainedUnit> units, ShardLayout layout, IProcessGroup group, Device device)
        : base(units, layout, group)
    {
        whole = zeros([layout.WholeSize], float32, device).DetachFromDisposeScope();
        if (layout.Ranks > 1)
            shard = zeros([layout.ShardSize], float32, device).DetachFromDisposeScope();
        foreach (var (parameter, slice) in layout.Slices(units, whole))
            parameter.BindGradient(slice);
    }

    public override Tensor Own => shard ?? whole;

    public override long Bytes => 4 * (whole.numel() + (shard?.numel() ?? 0));

    public override void Reduce()
    {
        if (shard is null)
        {
            Group.AllReduce(whole);
            return;
        }
        foreach (var unit in Layout.Units)
        {
            using var input = whole.narrow(0, unit.Whole, unit.Slice * Layout.Ranks);
            using var output = shard.narrow(0, unit.Shard, unit.Slice);
            Group.ReduceScatter(input, output);
        }
        whole.zero_();
    }

    public override void Invalidate() => whole.fill_(double.NaN);

    public override void Zero()
    {
        whole.zero_();
        shard?.zero_();
    }

    public override void Dispose()
    {
        whole.Dispose();
        shard?.Dispose();
    }
}
