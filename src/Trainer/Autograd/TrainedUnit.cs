using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>Trained parameters that ranks gather and reduce together: those of a layer, or those outside the layers, as
/// FSDP's units.</summary>
/// <param name="Layer">Index of the layer; null is the root, which holds the others.</param>
/// <param name="Parameters">In the order of the optimizer's arrays.</param>
internal sealed record TrainedUnit(int? Layer, IReadOnlyList<Parameter> Parameters)
{
    /// <summary>A rank's slice of a unit has a multiple of so many elements: 256 bytes of an fp32 array.</summary>
    public const long SliceAlignment = 64;

    /// <summary>Where the unit begins among the weights that the whole model trains, elements; null where it follows
    /// the unit before.</summary>
    public long? Start { get; init; }

    /// <summary>Whether another stage of the pipeline trains the same weights, and counts them: tied embeddings. Such a
    /// unit is the last.</summary>
    public bool IsCopy { get; init; }

    /// <summary>Weights.</summary>
    public long Count => Parameters.Sum(parameter => parameter.Count);

    /// <summary>The slices of a flat array that begins with the unit, one for each parameter.</summary>
    public IEnumerable<(Parameter Parameter, Tensor Slice)> Slices(Tensor array)
    {
        long at = 0;
        foreach (var parameter in Parameters)
        {
            yield return (parameter, array.narrow(0, at, parameter.Count).view([.. parameter.Shape]));
            at += parameter.Count;
        }
    }
}
