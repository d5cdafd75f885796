using Memopt.Trainer.Autograd;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Plan.Blocks;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>The ranks that share the matrices of a model (Megatron-LM; Shoeybi et al. 2019, arXiv 1909.08053). Of a
/// block's first linears each rank has some outputs (heads, channels), of its last one the inputs that belong to them.
/// The ranks add up the last one's output in forward, and the gradient of the block's input in backward.</summary>
/// <param name="group">The ranks.</param>
internal sealed class TensorParallel(IProcessGroup group)
{
    /// <summary>All-reduces that this rank has taken part in.</summary>
    public long Calls { get; private set; }

    public int Ranks => group.Size;

    public int Rank => group.Rank;

    public IProcessGroup Group => group;

    /// <summary>This rank's part of a weight.</summary>
    /// <param name="shape">Of the whole weight.</param>
    /// <param name="split">How it is divided; null where every rank has all of it.</param>
    /// <param name="isPartial">Of a weight that every rank has: whether each computes a part of its gradient.</param>
    public WeightSlice Slice(long[] shape, TensorSplit? split, bool isPartial = false) =>
        split is null
            ? new(shape, 0, [new(0, shape[0], group.Rank == 0)], isPartial)
            : new(shape, split.Dim, split.Ranges(group.Size, group.Rank), split.IsShared(group.Size));

    /// <summary>Sums a tensor over the ranks, in place.</summary>
    public Tensor AllReduce(Tensor partial, ReduceOp op = ReduceOp.Sum)
    {
        Calls++;
        group.AllReduce(partial, op);
        return partial;
    }

    /// <summary>Cross-entropy of rows of logits of which each rank has those of some tokens, with its gradient formed
    /// in their place (Megatron-LM's vocab parallel cross-entropy).</summary>
    /// <param name="logits">(n, V of the rank); overwritten with scale · gradient of the summed loss when
    /// <paramref name="gradient"/> is set.</param>
    /// <param name="targets">(n) int64, counted from the first token of the rank: others' are outside its
    /// range.</param>
    /// <param name="scale">Factor of the gradient.</param>
    /// <param name="cap">Soft cap of the logits; 0 is none.</param>
    /// <param name="gradient">Whether the gradient is wanted.</param>
    /// <returns>Losses (n) fp32, nats; and whether the likeliest token is the target, (n) bool.</returns>
    public (Tensor Losses, Tensor Right) CrossEntropy(
        Tensor logits,
        Tensor targets,
        double scale,
        double cap,
        bool gradient
    )
    {
        using var scope = NewDisposeScope();
        var raw = logits.to(float32, copy: true);
        var capped = cap > 0 ? (raw / cap).tanh_().mul_(cap) : raw;
        var (most, likeliest) = capped.max(-1);
        var top = AllReduce(most.clone(), ReduceOp.Max);
        var absent = targets.lt(0).logical_or_(targets.ge(logits.shape[1]));
        var column = targets.masked_fill(absent, 0).unsqueeze(1);
        var expected = capped.gather(1, column).squeeze(1).masked_fill_(absent, 0);
        var slope = (capped - top.unsqueeze(1)).exp_();
        var sums = AllReduce(stack([slope.sum(-1), expected])); // of exp, and the target's logit, (2, n)
        var losses = sums[0].log().add_(top).sub_(sums[1]);
        // The likeliest token of all ranks is on the rank whose likeliest is the target, or on none.
        var right = AllReduce(likeliest.eq(targets).logical_and_(most.eq(top)).to(int32), ReduceOp.Max).to(@bool);
        if (gradient)
        {
            slope.div_(sums[0].unsqueeze(1)); // softmax − one-hot
            slope.scatter_add_(1, column, absent.logical_not().to(float32).neg_().unsqueeze(1)).mul_(scale);
            logits.copy_(cap > 0 ? slope.mul_(1 - (capped / cap).square()) : slope);
        }
        return (losses.MoveToOuterDisposeScope(), right.MoveToOuterDisposeScope());
    }

    /// <summary>Sums the outputs of a linear of which each rank has some inputs, in place, and adds its bias.</summary>
    public void Complete(Tensor output, Linear linear)
    {
        AllReduce(output);
        using var scope = NewDisposeScope();
        if (linear.bias is { } bias)
            output.add_(bias.Cast(output.dtype));
    }
}
