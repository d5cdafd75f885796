using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Native;

/// <summary>Any ATen operator by name, through the C entry point that libtorch keeps stable for compiled extensions.
/// Gradients and autocast work as in TorchSharp's own calls, since both go through the same dispatcher.
/// </summary>
internal static unsafe partial class Aten
{
    internal const string Library = "torch_cpu",
        CudaLibrary = "torch_cuda";

    // More than any schema has; what the caller leaves off reads as zero, which is None, false or 0.
    private const int Slots = 64;

    /// <summary>Calls an operator and returns its first <paramref name="results"/> results, which must be
    /// tensors.</summary>
    /// <param name="op">Name with namespace: <c>aten::silu</c>.</param>
    /// <param name="overload">Overload, or an empty string.</param>
    /// <param name="args"> Arguments by position with the schema's types (a float is a <c>double</c>, not an
    /// <c>int</c>); the stack is untyped, so a wrong type is read as other bits, and a missing tensor ends the process.
    /// <c>Scalar</c> parameters are not supported by libtorch here.
    /// </param>
    /// <param name="results">How many results to take: all that the operator returns.</param>
    public static Tensor[] Call(string op, string overload, ReadOnlySpan<AtenArg> args, int results)
    {
        Span<ulong> raw = stackalloc ulong[results];
        Call(op, overload, args, raw);
        var taken = new Tensor[results];
        for (var i = 0; i < results; i++)
            taken[i] = Tensor.UnsafeCreateTensor((nint)raw[i]);
        return taken;
    }

    /// <summary>Calls an operator and leaves its results as they lie on the stack: a tensor is a handle that the caller
    /// wraps or loses, a number its bits.</summary>
    /// <param name="op">As above.</param>
    /// <param name="overload">As above.</param>
    /// <param name="args">As above.</param>
    /// <param name="results">All that the operator returns.</param>
    internal static void Call(string op, string overload, ReadOnlySpan<AtenArg> args, Span<ulong> results)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(args.Length, Slots, nameof(args));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(results.Length, Slots);
        var stack = stackalloc ulong[Slots];
        new Span<ulong>(stack, Slots).Clear();
        for (var i = 0; i < args.Length; i++)
            stack[i] = Pushed(args[i], op);

        // On failure the arguments are gone too: only an unknown name leaves them, a fault of the program and not of a
        // run.
        if (CallDispatcher(op, overload, stack) != 0)
        {
            // The reason does not come through. A request is refused only after the allocator has let go of all it
            // could, so if little is free, that was the reason: deterministic attention backward asks for up to ten
            // times what one argument takes.
            var given = args.ToArray();
            var likely =
                given.Any(arg => arg.Tensor?.device_type == DeviceType.CUDA)
                && Cuda.FreeBytes()
                    < 16 * given.Sum(arg => arg.Tensor is { } tensor ? tensor.numel() * tensor.element_size() : 0);
            throw new ExternalException(
                $"{op}{(overload.Length > 0 ? "." + overload : "")} failed in libtorch"
                    + $"{(likely ? ", out of memory" : ", which wrote the reason to standard error")}; arguments: "
                    + string.Join(", ", given.Select(Describe))
            );
        }
        new Span<ulong>(stack, results.Length).CopyTo(results);
    }

    /// <summary>Address of a tensor's first element.</summary>
    internal static nint DataPointer(Tensor tensor)
    {
        Check(GetDataPointer(tensor.Handle, out var pointer), "data pointer");
        return pointer;
    }

    /// <summary>libtorch's current CUDA stream on the first device.</summary>
    internal static nint CurrentStream()
    {
        Check(GetCurrentCudaStream(0, out var stream), "current stream");
        return stream;
    }

    /// <summary>a b written into a tensor of any strides: (m, k) (k, n) → (m, n).</summary>
    internal static void MatmulInto(Tensor a, Tensor b, Tensor result) =>
        Call("aten::mm", "out", [a, b, result], 1)[0].Dispose();

    /// <summary>a b with the products summed and left in fp32 where a and b are narrower: (m, k) (k, n) → (m,
    /// n).</summary>
    internal static Tensor MatmulFp32(Tensor a, Tensor b)
    {
        if (a.dtype == ScalarType.Float32 || a.device_type != DeviceType.CUDA)
            return a.matmul(b);
        var result = empty([a.shape[0], b.shape[1]], ScalarType.Float32, a.device);
        Call("aten::mm", "dtype_out", [a, b, (long)ScalarType.Float32, result], 1)[0].Dispose();
        return result;
    }

    /// <summary>Attention with every parameter of the operator, of which TorchSharp's call lacks
    /// <paramref name="scale"/> and <paramref name="enableGqa"/>.</summary>
    /// <param name="query">(batch, heads, length, size).</param>
    /// <param name="key">(batch, key heads, length, size).</param>
    /// <param name="value">As the key.</param>
    /// <param name="mask">Truth values or summands that broadcast to (batch, heads, length, key length).</param>
    /// <param name="dropout">Chance that a weight is dropped.</param>
    /// <param name="isCausal">Each position sees itself and those before it.</param>
    /// <param name="scale">Factor of the products; null is 1/√size.</param>
    /// <param name="enableGqa">Fewer key heads than query heads, each serving a group.</param>
    public static Tensor ScaledDotProductAttention(
        Tensor query,
        Tensor key,
        Tensor value,
        Tensor? mask = null,
        double dropout = 0,
        bool isCausal = false,
        double? scale = null,
        bool enableGqa = false
    ) =>
        Call(
            "aten::scaled_dot_product_attention",
            "",
            [query, key, value, AtenArg.Maybe(mask), dropout, isCausal, AtenArg.Maybe(scale), enableGqa],
            1
        )[0];

    private static ulong Pushed(AtenArg arg, string op)
    {
        var bits = arg.Bits;
        if (arg.Tensors is { } tensors)
        {
            Check(NewList((nuint)tensors.Count, out var list), op);
            foreach (var tensor in tensors)
                Check(PushBack(list, Handle(tensor, op)), op);
            return (ulong)list;
        }
        if (arg.IsUndefined)
        {
            Check(NewUndefinedTensor(out var nothing), op);
            return (ulong)nothing;
        }
        if (arg.Tensor is { } one)
            bits = Handle(one, op);
        if (!arg.Optional)
            return bits;
        var box = (ulong*)NativeMemory.Alloc(sizeof(ulong)); // the call frees it
        *box = bits;
        return (ulong)box;
    }

    /// <summary>A second handle of a tensor, since the call consumes the one it gets.</summary>
    private static ulong Handle(Tensor tensor, string op)
    {
        Check(NewTensorHandle(tensor.Handle, out var handle), op);
        GC.KeepAlive(tensor);
        return (ulong)handle;
    }

    private static void Check(int code, string op)
    {
        if (code != 0)
            throw new ExternalException($"An argument of {op} could not be handed to libtorch.");
    }

    private static string Describe(AtenArg arg) =>
        arg.Tensor is { } tensor ? $"{tensor.dtype}[{string.Join(",", tensor.shape)}]"
        : arg.Tensors is { } list ? $"{list.Count} tensors"
        : $"0x{arg.Bits:x}";

    [LibraryImport(Library, EntryPoint = "aoti_torch_call_dispatcher", StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int CallDispatcher(string op, string overload, ulong* stack);

    [LibraryImport(Library, EntryPoint = "aoti_torch_new_tensor_handle")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int NewTensorHandle(nint tensor, out nint handle);

    [LibraryImport(Library, EntryPoint = "aoti_torch_new_uninitialized_tensor")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int NewUndefinedTensor(out nint handle);

    [LibraryImport(Library, EntryPoint = "aoti_torch_get_data_ptr")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int GetDataPointer(nint tensor, out nint pointer);

    [LibraryImport(CudaLibrary, EntryPoint = "aoti_torch_get_current_cuda_stream")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int GetCurrentCudaStream(int device, out nint stream);

    [LibraryImport(Library, EntryPoint = "torch_new_list_reserve_size")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int NewList(nuint size, out nint list);

    [LibraryImport(Library, EntryPoint = "torch_list_push_back")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int PushBack(nint list, ulong item);

    /// <summary>The version the loaded library states of itself: 2.10.0 as bytes 02 0a 00 from the top.</summary>
    internal static Version LoadedVersion()
    {
        var packed = AbiVersion();
        return new((int)(packed >> 56), (int)(packed >> 48 & 0xff), (int)(packed >> 40 & 0xff));
    }

    [LibraryImport(Library, EntryPoint = "aoti_torch_abi_version")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial ulong AbiVersion();
}
