using Memopt.Trainer.Autograd;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Optim;

/// <summary>The trained units of a stage of a pipeline, as parts of what the whole model trains: layer after layer,
/// then embeddings, last norm and head. A checkpoint of one number of stages is read with another by these
/// places.</summary>
internal static class StageUnits
{
    /// <summary>The units with their places. Tied embeddings, which the first stage trains, are a copy on the last
    /// one.</summary>
    /// <param name="units">What the stage trains.</param>
    /// <param name="spec">The stage.</param>
    /// <param name="trained">How many weights each stage trains, copies included.</param>
    /// <param name="full">Whether all weights are trained, and not an adapter.</param>
    public static IReadOnlyList<TrainedUnit> Of(
        IReadOnlyList<TrainedUnit> units,
        ModelSpec spec,
        IReadOnlyList<long> trained,
        bool full
    )
    {
        if (spec.Stage.Count == 1)
            return units;
        var (placed, embeddings) = (new List<TrainedUnit>(), full ? spec.Embeddings.Elements : 0);
        var next = trained.Take(spec.Stage.Index).Sum() - (spec.Stage.IsFirst ? 0 : embeddings);
        foreach (var unit in units)
        {
            if (unit.Layer is not null)
            {
                placed.Add(unit with { Start = next });
                next += unit.Count;
            }
            // The root of the first stage: the embeddings. Head or copy of the embeddings are as large.
            else if (spec.Stage.IsFirst)
            {
                placed.Add(unit with { Start = trained.Sum() - 2 * embeddings - spec.HiddenSize });
            }
            else
            {
                var copies = unit.Parameters.Where(parameter => parameter.Name == spec.Embeddings.Name).ToList();
                placed.Add(unit with { Parameters = [.. unit.Parameters.Except(copies)], Start = next + embeddings });
                if (copies.Count > 0)
                    placed.Add(new(null, copies) { Start = next, IsCopy = true });
            }
        }
        return placed;
    }
}
