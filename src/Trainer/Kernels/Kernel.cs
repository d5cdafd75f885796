using System.Runtime.InteropServices;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>A file of CUDA C++ that travels in this assembly, compiled on first use for the present card and for one
/// type of activations. Where it cannot run (no GPU, no compiler), its shelf-mate's plain reference does.
/// </summary>
internal sealed class Kernel(string file)
{
    private static readonly Dictionary<ScalarType, string> types = new()
    {
        [ScalarType.Float32] = "float",
        [ScalarType.BFloat16] = "bf16",
        [ScalarType.Float16] = "fp16",
    };

    private readonly Dictionary<ScalarType, nint> modules = [];
    private readonly Dictionary<(string, ScalarType), nint> functions = [];

    /// <summary>Files of this assembly, in order.</summary>
    public static IReadOnlyList<string> Files =>
        [
            .. typeof(Kernel)
                .Assembly.GetManifestResourceNames()
                .Where(name => name.EndsWith(".cu", StringComparison.Ordinal))
                .Order(StringComparer.Ordinal),
        ];

    /// <summary>Whether a tensor's work is done by kernels of our own.</summary>
    public static bool Supports(Tensor tensor) =>
        tensor.device_type == DeviceType.CUDA && Backend.Compiler is not null && types.ContainsKey(tensor.dtype);

    /// <summary>As above, for a tensor that is to be.</summary>
    public static bool Supports(Device device, ScalarType type) =>
        device.type == DeviceType.CUDA && Backend.Compiler is not null && types.ContainsKey(type);

    /// <summary>The program that is compiled: what all share, the type, the file.</summary>
    public static string Source(string file, ScalarType type) =>
        $"{Text("Common.cuh")}\ntypedef {types[type]} T;\n#line 1\n{Text(file)}";

    /// <summary>Queues a function of the file on the current stream.</summary>
    /// <param name="function">Its name there.</param>
    /// <param name="type">What T stands for.</param>
    /// <param name="grid">Blocks.</param>
    /// <param name="block">Threads of a block.</param>
    /// <param name="arguments">In order, each of the type that the function declares.</param>
    public void Launch(
        string function,
        ScalarType type,
        (long X, long Y) grid,
        (int X, int Y) block,
        ReadOnlySpan<KernelArg> arguments
    )
    {
        if (grid.X == 0 || grid.Y == 0)
            return;
        if (!functions.TryGetValue((function, type), out var entry))
        {
            if (!modules.TryGetValue(type, out var module))
                modules[type] = module = Cuda.LoadModule(
                    Backend.Compiler!.Compile(file, Source(file, type), Cuda.Capability())
                );
            functions[(function, type)] = entry = Cuda.Function(module, function);
        }
        Cuda.Launch(entry, grid, block, 0, MemoryMarshal.Cast<KernelArg, ulong>(arguments));
    }

    /// <summary>Whether rows of a width, and the tensors they lie in, can be read sixteen bytes at a time.</summary>
    public static int Packed(long width, params ReadOnlySpan<Tensor?> tensors)
    {
        foreach (var tensor in tensors)
        {
            if (tensor is not null && (Aten.DataPointer(tensor) % 16 != 0 || width * tensor.element_size() % 16 != 0))
                return 0;
        }
        return 1;
    }

    private static string Text(string name)
    {
        using var reader = new StreamReader(typeof(Kernel).Assembly.GetManifestResourceStream(name)!);
        return reader.ReadToEnd();
    }
}
