using Memopt.Core;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Plan;

/// <summary>A stage of a pipeline.</summary>
/// <param name="Index">From 0.</param>
/// <param name="Count">Stages of the pipeline.</param>
internal readonly record struct PipelineStage(int Index, int Count)
{
    /// <summary>One stage, which holds the whole model.</summary>
    public static PipelineStage Only { get; } = new(0, 1);

    public bool IsFirst => Index == 0;

    public bool IsLast => Index == Count - 1;

    /// <summary>Forwards that it runs before its first backward, 1F1B (Narayanan et al. 2021, arXiv
    /// 2104.04473).</summary>
    /// <param name="microBatches">Of a step.</param>
    public int WarmUp(int microBatches) => Math.Min(Count - Index - 1, microBatches);

    /// <summary>Most micro-batches whose saved tensors it holds at once.</summary>
    /// <param name="microBatches">Of a step.</param>
    public int InFlight(int microBatches) => Math.Min(Count - Index, microBatches);
}

/// <summary>Cuts a model into the stages of a pipeline.</summary>
internal static class PipelineStages
{
    /// <summary>The stages, in their order: contiguous runs of layers, cut so that the slowest stage takes the least
    /// arithmetic; of equal cuts the one with the fewest layers in the first stages, which hold the most micro-batches
    /// at once. The head counts to the last stage.</summary>
    /// <param name="spec">The whole model.</param>
    /// <param name="stages">How many.</param>
    /// <param name="kind">What is trained.</param>
    /// <param name="length">Tokens of a sequence.</param>
    /// <exception cref="UserFault">There are fewer layers.</exception>
    public static IReadOnlyList<ModelSpec> Cut(ModelSpec spec, int stages, AdapterKind kind, int length)
    {
        if (stages == 1)
            return [spec];
        if (stages > spec.Layers)
            throw new UserFault(
                "There are more pipeline stages than layers.",
                found: $"distributed.pipeline = {stages}, {spec.Layers} layers",
                next: $"set distributed.pipeline to {spec.Layers} at most"
            );
        var from = 0;
        return
        [
            .. Counts(spec, stages, kind, length)
                .Select(
                    (count, index) =>
                    {
                        from += count;
                        return spec.OfStage(new(index, stages), [.. spec.Blocks.Skip(from - count).Take(count)]);
                    }
                ),
        ];
    }

    /// <summary>Layers of each stage.</summary>
    private static int[] Counts(ModelSpec spec, int stages, AdapterKind kind, int length)
    {
        var layers = spec.Blocks.Select(layer => CostModel.Flops(layer, kind, length)).ToArray();
        // least[s][i]: the slowest of the last s stages where they hold the layers from i on; first[s][i]: how many
        // the first of them holds then.
        var least = new double[stages + 1][];
        var first = new int[stages + 1][];
        for (var s = 1; s <= stages; s++)
        {
            (least[s], first[s]) = (new double[layers.Length + 1], new int[layers.Length + 1]);
            Array.Fill(least[s], double.PositiveInfinity);
            for (var i = layers.Length - s; i >= 0; i--)
            {
                var own = s == 1 ? CostModel.HeadFlops(spec, kind) + layers[i..].Sum() : 0;
                if (s == 1)
                    (least[s][i], first[s][i]) = (own, layers.Length - i);
                for (var count = 1; s > 1 && i + count <= layers.Length - (s - 1); count++)
                {
                    own += layers[i + count - 1];
                    var slowest = Math.Max(own, least[s - 1][i + count]);
                    if (slowest < least[s][i])
                        (least[s][i], first[s][i]) = (slowest, count);
                }
            }
        }
        var (counts, at) = (new int[stages], 0);
        for (var s = stages; s > 0; s--)
            at += counts[stages - s] = first[s][at];
        return counts;
    }
}
