using Memopt.Trainer.Autograd;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Plan.Blocks;

namespace Memopt.Trainer.Models;

/// <summary>Where a decoder's parts come from: the weights file, cast or quantized and placed, one tensor at a
/// time.</summary>
internal interface IWeightSource
{
    /// <summary>A weight kept as it is: an embedding or a norm.</summary>
    /// <param name="name">As in the weights file.</param>
    /// <param name="split">How tensor parallel ranks divide it; null where each has all of it.</param>
    /// <param name="isPartial">Whether each of them computes a part of its gradient.</param>
    Parameter Weight(string name, TensorSplit? split = null, bool isPartial = false);

    /// <summary>A linear, bias included where the spec has one.</summary>
    Linear Linear(LinearSpec spec);

    /// <summary>A layer has all its parts; the next is to come.</summary>
    void OnLayerLoaded(DecoderLayer layer) { }
}
