using Memopt.Trainer.Config;

namespace Memopt.Trainer.Plan.Blocks;

/// <summary>One layer of a decoder: attention and MLP, each behind a norm and around a residual. It adds up what its
/// parts take in training.</summary>
/// <param name="index">Place in the model, from 0.</param>
/// <param name="attention">Its attention.</param>
/// <param name="mlp">Its MLP.</param>
internal sealed class LayerSpec(int index, AttentionSpec attention, MlpSpec mlp)
{
    public int Index => index;

    public AttentionSpec Attention => attention;

    public MlpSpec Mlp => mlp;

    /// <summary>What one of several tensor parallel ranks has of the layer.</summary>
    public LayerSpec Shard(int ranks) => new(index, attention.Shard(ranks), mlp.Shard(ranks));

    private string Prefix => $"model.layers.{Index}.";

    private long HiddenSize => Attention.HiddenSize;

    /// <summary>Its linears, in the order they are run.</summary>
    public IReadOnlyList<LinearSpec> Linears =>
        field ??= [.. Attention.Linears(Prefix + "self_attn."), .. Mlp.Linears(Prefix + "mlp.")];

    /// <summary>The linears that an adapter is attached to.</summary>
    public IReadOnlyList<LinearSpec> Adapted(AdapterConfig adapter) =>
        [.. Linears.Where(linear => adapter.Targets.Cover(linear.Name))];

    /// <summary>Its tensors in the weights file.</summary>
    public IEnumerable<TensorSpec> Tensors
    {
        get
        {
            yield return new(Prefix + "input_layernorm.weight", [HiddenSize]);
            if (Attention.QkNorm)
            {
                yield return new(Prefix + "self_attn.q_norm.weight", [Attention.HeadDim]);
                yield return new(Prefix + "self_attn.k_norm.weight", [Attention.HeadDim]);
            }
            yield return new(Prefix + "post_attention_layernorm.weight", [HiddenSize]);
            foreach (var linear in Linears)
            {
                yield return new(linear.Name + ".weight", [linear.Out, linear.In]);
                if (linear.HasBias)
                    yield return new(linear.Name + ".bias", [linear.Out]);
            }
        }
    }

    /// <summary>Bytes of its input, and of its output.</summary>
    public long InputBytes(long tokens, PlanDevice device) => tokens * HiddenSize * device.ComputeBytes;

    /// <summary>Bytes saved for backward, the input left out: two norms with a number a row each, the parts, and the
    /// low-rank products of adapters with their dropped-out inputs.</summary>
    /// <param name="tokens">Of the micro-batch.</param>
    /// <param name="device">The device.</param>
    /// <param name="lowRank">Numbers of a token that adapters save.</param>
    public long SavedBytes(long tokens, PlanDevice device, long lowRank) =>
        2 * (InputBytes(tokens, device) + tokens * 4)
        + Attention.SavedBytes(tokens, device)
        + Mlp.SavedBytes(tokens, device)
        + tokens * device.ComputeBytes * lowRank;

    /// <summary>Bytes that activation checkpointing saves instead: the input, and the tensors that the rung
    /// keeps.</summary>
    public long CheckpointedBytes(long tokens, Rung rung, PlanDevice device) =>
        InputBytes(tokens, device)
        + (rung.Keeps.HasFlag(SavedForBackward.Attention) ? Attention.OutputBytes(tokens, device) : 0)
        + (rung.Keeps.HasFlag(SavedForBackward.Residual) ? InputBytes(tokens, device) : 0);

    /// <summary>Bytes of its backward beyond what it saved: the gradients of output and residual, and either the
    /// gradient within the MLP or those of attention. What of attention's is smaller than gate or up goes where they
    /// were.</summary>
    public long BackwardBytes(long tokens, int microBatch, bool deterministic, PlanDevice device)
    {
        var input = InputBytes(tokens, device);
        var gated = Mlp.GatedBytes(tokens, device);
        var attention = Attention.BackwardBytes(tokens, microBatch, deterministic, 2 * gated, device);
        return Math.Max(gated + 2 * input, 3 * input + attention);
    }

    /// <summary>Bytes of a forward that needs no gradient.</summary>
    public long ForwardBytes(long tokens, PlanDevice device, long lowRank) =>
        SavedBytes(tokens, device, lowRank) + Mlp.GatedBytes(tokens, device) + 3 * InputBytes(tokens, device);

    /// <summary>Arithmetic of one token in forward and backward, where weights are frozen.</summary>
    public double Flops(int length) => 4 * Linears.Sum(linear => (double)linear.Weights) + 7 * Attention.Flops(length);

    /// <summary>Arithmetic of one token in the second forward of activation checkpointing. The last product is not
    /// computed, and neither is what the rung keeps.</summary>
    public double RecomputedFlops(int length, SavedForBackward keeps)
    {
        double all = Linears.Sum(linear => (double)linear.Weights),
            down = Mlp.Linears("").Last().Weights,
            output = Attention.Linears("").Last().Weights;
        return 2 * (all - down - (keeps.HasFlag(SavedForBackward.Residual) ? output : 0))
            + (keeps.HasFlag(SavedForBackward.Attention) ? 0 : 2 * Attention.Flops(length));
    }
}
