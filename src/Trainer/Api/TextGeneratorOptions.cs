using Memopt.Trainer.Config;

namespace Memopt;

/// <summary>How a model is loaded to answer.</summary>
public sealed record TextGeneratorOptions
{
    /// <summary>cpu, cuda, a folder that holds libtorch, or null for what is found first. The first one loaded stays
    /// for the whole process.</summary>
    public string? Backend { get; init; }

    /// <summary>Takes the model from the cache and asks no server.</summary>
    public bool Offline { get; init; }

    /// <summary>Compute type; auto is the one that the adapter was trained in, where the adapter records it, else
    /// bfloat16 on a GPU that has it and float32 on a CPU.
    /// </summary>
    public DType Dtype { get; init; } = DType.Auto;

    /// <summary>Keeps the base in 4 bits, at about a quarter of its 16-bit memory; null keeps it as it was when the
    /// adapter was trained, and in the compute type where the adapter does not record that.
    /// </summary>
    public QuantType? Quantize { get; init; }

    /// <summary>Keeps the base in the compute type also where the adapter was trained over 4 bits.</summary>
    public bool Unquantized { get; init; }
}
