using Memopt.Trainer.Native;
using TorchSharp;

namespace Memopt.Trainer.Tests.Gpu;

/// <summary>Where GPU tests run, and what they say where they cannot.</summary>
internal static class Gpu
{
    public const string Trait = "Device",
        Name = "gpu";

    public static string? Missing { get; } =
        Backend.Load(null, TestBackend.Environment) is { Kind: "cuda" } && Backend.Compiler is not null
            ? null
            : "needs a CUDA GPU with libtorch and NVRTC; run there: dotnet Trainer.Tests.dll gpu";

    public static torch.Device Device => new("cuda:0");
}

/// <summary>A test that needs a GPU.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class GpuFactAttribute : FactAttribute
{
    public GpuFactAttribute() => Skip = Gpu.Missing;
}

/// <summary>A parametrized test that needs a GPU.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class GpuTheoryAttribute : TheoryAttribute
{
    public GpuTheoryAttribute() => Skip = Gpu.Missing;
}
