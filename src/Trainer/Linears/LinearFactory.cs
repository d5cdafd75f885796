using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Kernels;
using static TorchSharp.torch;

namespace Memopt.Trainer.Linears;

/// <summary>Decides how each linear of a model keeps its weight: as a matrix or in 4 bits. Each kind of linear that
/// comes (sharded, 8 bits) is a case here.</summary>
/// <param name="type">Type of weights that are kept as they are.</param>
/// <param name="quantized">Whether the linear of a module is kept in 4 bits; null keeps none so.</param>
/// <param name="quantization">The 4-bit type.</param>
/// <param name="compute">Type that 4-bit weights are expanded to; null is <paramref name="type"/>.</param>
internal sealed class LinearFactory(
    ScalarType type,
    Func<string, bool>? quantized = null,
    QuantizationConfig? quantization = null,
    ScalarType? compute = null
)
{
    private readonly QuantizationConfig quantization = quantization ?? new();

    /// <summary>Makes the linear of a module.</summary>
    /// <param name="module">Name as in the weights file, without <c>.weight</c>.</param>
    /// <param name="read">Reads the weight (Out, In) in a type, or else in that of the file.</param>
    /// <param name="bias">(Out), or none.</param>
    /// <param name="scratch">Where the model's 4-bit linears expand their weights.</param>
    /// <param name="slice">What the rank has of the weight; null is all of it. A weight is quantized whole, so that
    /// every rank has the codes of one rank.</param>
    public Linear Create(
        string module,
        Func<ScalarType?, Tensor> read,
        Parameter? bias,
        Nf4Scratch scratch,
        WeightSlice? slice = null
    )
    {
        using var scope = NewDisposeScope();
        if (quantized?.Invoke(module) != true)
        {
            var weight = read(type);
            return new DenseLinear(
                module,
                new Parameter(module + ".weight", slice?.Take(weight) ?? weight) { Slice = slice },
                bias
            )
            {
                Slice = slice,
            };
        }
        var codes = Nf4.Quantize(read(null), quantization.Type, quantization.DoubleQuant);
        return new Nf4Linear(module, slice is null ? codes : codes.Take(slice), bias, compute ?? type, scratch)
        {
            Slice = slice,
        };
    }
}
