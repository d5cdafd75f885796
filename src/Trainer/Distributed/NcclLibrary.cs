using System.Runtime.InteropServices;
using Memopt.Core;
using TorchSharp;

namespace Memopt.Trainer.Distributed;

/// <summary>NCCL by its C ABI (nccl.h). Every function returns a code; communicators are non-blocking.</summary>
internal sealed unsafe class NcclLibrary
{
    public const int Success = 0;
    public const int InProgress = 7;

    private readonly nint library;
    private readonly delegate* unmanaged[Cdecl]<int, nint> errorString;
    private readonly delegate* unmanaged[Cdecl]<nint, nint> lastError;
    private readonly delegate* unmanaged[Cdecl]<nint, int*, int> asyncError;

    private NcclLibrary(nint library)
    {
        this.library = library;
        errorString = (delegate* unmanaged[Cdecl]<int, nint>)Export("ncclGetErrorString");
        lastError = (delegate* unmanaged[Cdecl]<nint, nint>)Export("ncclGetLastError");
        asyncError = (delegate* unmanaged[Cdecl]<nint, int*, int>)Export("ncclCommGetAsyncError");
        int version;
        Check(((delegate* unmanaged[Cdecl]<int*, int>)Export("ncclGetVersion"))(&version), 0, "ncclGetVersion");
        Version = new(version / 10_000, version / 100 % 100, version % 100);
    }

    /// <summary>All ranks must have the same.</summary>
    public Version Version { get; }

    /// <summary>Loads NCCL as PyTorch's packages lay it out, or the system's.</summary>
    /// <param name="libtorch">The folder of libtorch.</param>
    /// <exception cref="UserFault">There is none.</exception>
    public static NcclLibrary Load(string libtorch)
    {
        const string name = "libnccl.so.2";
        string[] candidates =
        [
            Path.Combine(libtorch, name),
            Path.GetFullPath(Path.Combine(libtorch, "..", "..", "nvidia", "nccl", "lib", name)),
            name,
        ];
        foreach (var candidate in candidates)
        {
            if (NativeLibrary.TryLoad(candidate, out var library))
                return new(library);
        }
        throw new UserFault(
            "Several GPUs need NCCL, which is not here.",
            found: $"no {string.Join(", no ", candidates)}",
            next: "install PyTorch with CUDA, which brings NCCL, or the package libnccl2; or train on one GPU"
        );
    }

    public nint Export(string name) => NativeLibrary.GetExport(library, name);

    /// <summary>The state of a communicator: <see cref="Success"/>, <see cref="InProgress"/>, or a fault.</summary>
    public int State(nint comm)
    {
        int state;
        Check(asyncError(comm, &state), comm, "ncclCommGetAsyncError");
        return state;
    }

    /// <summary>Throws when a code says that a call failed.</summary>
    public void Check(int code, nint comm, string call)
    {
        if (code is Success or InProgress)
            return;
        var detail = comm == 0 ? null : Marshal.PtrToStringUTF8(lastError(comm));
        throw new UserFault(
            $"{call} failed.",
            found: $"{Marshal.PtrToStringUTF8(errorString(code))}{(string.IsNullOrEmpty(detail) ? "" : $"; {detail}")}",
            next: "NCCL_DEBUG=INFO names the cause; run again: the run resumes from its last checkpoint"
        )
        {
            Failed = true,
        };
    }

    /// <summary>NCCL's number of an element type (ncclDataType_t).</summary>
    public static int TypeOf(torch.ScalarType type) =>
        type switch
        {
            torch.ScalarType.Int8 => 0,
            torch.ScalarType.Byte or torch.ScalarType.Bool => 1,
            torch.ScalarType.Int32 => 2,
            torch.ScalarType.Int64 => 4,
            torch.ScalarType.Float16 => 6,
            torch.ScalarType.Float32 => 7,
            torch.ScalarType.Float64 => 8,
            torch.ScalarType.BFloat16 => 9,
            _ => throw new ArgumentException($"NCCL has no {type}."),
        };

    /// <summary>NCCL's number of a reduction (ncclRedOp_t).</summary>
    public static int OpOf(ReduceOp op) =>
        op switch
        {
            ReduceOp.Sum => 0,
            ReduceOp.Max => 2,
            _ => 3,
        };

    /// <summary>ncclUniqueId.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 128)]
    public struct UniqueId;

    /// <summary>ncclConfig_t as version 2.18 had it: <see cref="Size"/> and <see cref="Version"/> say where it ends,
    /// and later versions give their further fields the defaults.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct Config
    {
        public nuint Size;
        public uint Magic;
        public uint Version;
        public int Blocking;
        public int CgaClusterSize;
        public int MinCtas;
        public int MaxCtas;
        public nint NetName;
        public int SplitShare;

        /// <summary>Non-blocking; the rest is left to NCCL.</summary>
        public static Config NonBlocking =>
            new()
            {
                Size = (nuint)sizeof(Config),
                Magic = 0xcafebeef,
                Version = 21_800,
                Blocking = 0,
                CgaClusterSize = int.MinValue,
                MinCtas = int.MinValue,
                MaxCtas = int.MinValue,
                SplitShare = int.MinValue,
            };
    }
}
