namespace Memopt.Trainer.Autograd;

/// <summary>Trained parameters that ranks gather and reduce together: those of a layer, or those outside the layers, as
/// FSDP's units.</summary>
/// <param name="Layer">Index of the layer; null is the root, which holds the others.</param>
/// <param name="Parameters">In the order of the optimizer's arrays.</param>
internal sealed record TrainedUnit(int? Layer, IReadOnlyList<Parameter> Parameters);
