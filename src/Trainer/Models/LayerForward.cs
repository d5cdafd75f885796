using Memopt.Trainer.Autograd;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Runs one layer: (N, C) → (N, C). A memory pass is a function from one of these to another:
/// <c>Memory/LayerRunner</c> composes them.</summary>
internal delegate ForwardResult LayerForward(DecoderLayer layer, Tensor x, ForwardContext context);
