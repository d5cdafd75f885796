using Memopt.Trainer.Config;

namespace Memopt.Trainer.Plan.Blocks;

/// <summary>Grouped-query causal attention of one layer: its shape, and what it takes in training.
/// <c>Models/Attention</c> is the part itself.</summary>
/// <param name="HiddenSize">Numbers of a token between layers, C.</param>
/// <param name="Heads">Query heads.</param>
/// <param name="KvHeads">Key and value heads.</param>
/// <param name="HeadDim">Numbers of a head.</param>
internal sealed record AttentionSpec(int HiddenSize, int Heads, int KvHeads, int HeadDim)
{
    public bool QkvBias { get; init; }

    public bool OutBias { get; init; }

    /// <summary>Norms over each head of q and k (Qwen3).</summary>
    public bool QkNorm { get; init; }

    /// <summary>One projection for q, k and v (Phi-3).</summary>
    public bool FusedQkv { get; init; }

    /// <summary>Tokens a query looks back; null sees all.</summary>
    public int? Window { get; init; }

    /// <summary>Numbers of a token's queries.</summary>
    public long QueryWidth => (long)Heads * HeadDim;

    /// <summary>Numbers of a token's keys, and of its values.</summary>
    public long KeyWidth => (long)KvHeads * HeadDim;

    /// <summary>Its linears, in the order they are run; the output projection is the last.</summary>
    /// <param name="prefix">Module name before theirs.</param>
    public IEnumerable<LinearSpec> Linears(string prefix)
    {
        var (queries, keys) = (new SplitPart(Heads, HeadDim), new SplitPart(KvHeads, HeadDim));
        if (FusedQkv)
        {
            yield return Projection("qkv_proj", QueryWidth + 2 * KeyWidth, queries, keys, keys);
        }
        else
        {
            yield return Projection("q_proj", QueryWidth, queries);
            yield return Projection("k_proj", KeyWidth, keys);
            yield return Projection("v_proj", KeyWidth, keys);
        }
        yield return new(prefix + "o_proj", QueryWidth, HiddenSize, OutBias) { Split = new(1, queries) };

        LinearSpec Projection(string name, long width, params SplitPart[] parts) =>
            new(prefix + name, HiddenSize, width, QkvBias) { Split = new(0, parts) };
    }

    /// <summary>The heads that one of several tensor parallel ranks has.</summary>
    public AttentionSpec Shard(int ranks) =>
        this with
        {
            Heads = Heads / ranks,
            KvHeads = Math.Max(1, KvHeads / ranks),
        };

    /// <summary>Bytes saved for backward: q, k, v, the output and its log-sum-exp, and the norms of q and k. The
    /// general operator repeats keys and values to all heads and copies its result. Context parallel ranks save the
    /// gathered keys and values: backward does not gather them again.</summary>
    /// <param name="tokens">Tokens that this rank computes.</param>
    /// <param name="device">The device.</param>
    public long SavedBytes(long tokens, PlanDevice device)
    {
        long c = device.ComputeBytes,
            q = QueryWidth,
            kv = KeyWidth,
            keys = Keys(tokens, device);
        var gathered = device.ContextRanks == 1 ? 0 : 2 * keys * kv * c;
        var norms = QkNorm ? tokens * ((q + kv) * c + 4L * (Heads + KvHeads)) : 0;
        var general = device.FusedAttention ? 0 : (tokens + (Heads == KvHeads ? 0 : 2 * keys)) * q * c;
        return gathered + norms + tokens * ((q + 2 * kv) * c + q * c + 4L * Heads) + general;
    }

    /// <summary>Bytes of the output and its log-sum-exp, which activation checkpointing can save: only the fused
    /// kernels give them.</summary>
    public long OutputBytes(long tokens, PlanDevice device) =>
        device.FusedAttention ? tokens * (QueryWidth * device.ComputeBytes + Heads * 4) : 0;

    /// <summary>Bytes of its backward beyond <paramref name="reusable"/>, bytes in two halves that the backward of the
    /// MLP left. The gradient of q is summed in fp32; in a fixed order in as many parts as it takes for every
    /// multiprocessor to have a head.</summary>
    public long BackwardBytes(long tokens, int microBatch, bool deterministic, long reusable, PlanDevice device)
    {
        long c = device.ComputeBytes,
            q = QueryWidth,
            heads = (long)microBatch * Heads,
            keys = Keys(tokens, device);
        var parts = deterministic ? (device.Multiprocessors + heads - 1) / heads : 1;
        var (sums, rest) = device.FusedAttention
            ? (4 * tokens * q * parts, ((tokens + 2 * keys) * q + tokens * (FusedQkv ? q + 2 * KeyWidth : 0)) * c)
            : (0, (tokens + keys) * q * 4 * c);
        return sums > reusable / 2 ? sums + Math.Max(0, rest - reusable) : Math.Max(0, sums + rest - reusable);
    }

    /// <summary>Keys that a rank's queries attend to. Of context parallel ranks each has those of whole rows; for the
    /// fused kernels those before the end of each of its two pieces of a row.</summary>
    private static long Keys(long tokens, PlanDevice device) =>
        device.ContextRanks == 1 ? tokens
        : device.FusedAttention ? tokens * (2 * device.ContextRanks + 1) / 2
        : tokens * device.ContextRanks;

    /// <summary>Arithmetic of one token's forward in attention itself, its linears left out: half of 2 · T · q · 2
    /// products, since it is causal.</summary>
    /// <param name="length">Tokens of a sequence, T.</param>
    public double Flops(int length) => (double)length * QueryWidth;
}
