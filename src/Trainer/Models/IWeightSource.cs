using Memopt.Trainer.Autograd;
using Memopt.Trainer.Linears;

namespace Memopt.Trainer.Models;

/// <summary>Where a decoder's parts come from: the weights file, cast or quantized and placed, one tensor at a
/// time.</summary>
internal interface IWeightSource
{
    /// <summary>A weight kept as it is: an embedding or a norm.</summary>
    Parameter Weight(string name);

    /// <summary>The linear of a module, bias included where the spec has one.</summary>
    Linear Linear(string module);

    /// <summary>A layer has all its parts; the next is to come.</summary>
    void OnLayerLoaded(DecoderLayer layer) { }
}
