using System.ComponentModel;
using Memopt.Core;

namespace Memopt.Trainer.Config;

public enum DType
{
    Auto,

    [Alias("fp32", "float")]
    Float32,

    [Alias("bf16")]
    Bfloat16,

    [Alias("fp16", "half")]
    Float16,
}

public sealed record ModelConfig
{
    [
        Description(
            "Model folder (relative to the config file), org/name on the Hugging Face Hub, modelscope:org/name, "
                + "https://host/folder, az://account/container/path, or 'embedded:nano', the small model that ships "
                + "with the tool."
        ),
        Pinned
    ]
    public string Source { get; init; } = "embedded:nano";

    [
        Description(
            "Branch, tag or commit of a downloaded model; none is the main branch. The run records the "
                + "resolved commit."
        ),
        Pinned
    ]
    public string? Revision { get; init; }

    [
        Description(
            "Compute type. auto: bfloat16 on a GPU from compute capability 8.0, float16 on an older GPU, "
                + "float32 on a CPU."
        ),
        Pinned
    ]
    public DType Dtype { get; init; } = DType.Auto;
}
