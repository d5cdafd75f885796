using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Memopt.Core;
using Memopt.Trainer.Native;
using static TorchSharp.torch;

namespace Memopt.Trainer.Distributed;

/// <summary>MPI by its C ABI. Open MPI's handles are addresses of exported globals, those of MPICH (and of Intel MPI
/// and MVAPICH, which share its ABI) are integers: both fit a word, so one table of functions serves them. Sources:
/// mpi.h of Open MPI 4.1 and of MPICH 4.0.</summary>
internal sealed unsafe class MpiLibrary
{
    /// <summary>Library of Open MPI 4 and 5.</summary>
    public const string OpenMpi = "libmpi.so.40";

    /// <summary>Library of MPICH 3 and 4.</summary>
    public const string Mpich = "libmpich.so.12";

    // MPI-4.0, section 11.6.2: one thread at a time calls.
    private const int Serialized = 2;

    private readonly nint library;
    private readonly bool open;
    private readonly delegate* unmanaged[Cdecl]<int, byte*, int*, int> errorString;
    private readonly Dictionary<ScalarType, nint> types = [];
    private readonly Dictionary<ScalarType, nint> sums = [];

    private MpiLibrary(nint library, bool open)
    {
        (this.library, this.open) = (library, open);
        errorString = (delegate* unmanaged[Cdecl]<int, byte*, int*, int>)Export("MPI_Error_string");
        World = Handle("ompi_mpi_comm_world", 0x44000000);
        Byte = Handle("ompi_mpi_byte", 0x4c00010d);
        (Sum, Min, Max) = (
            Handle("ompi_mpi_op_sum", 0x58000003),
            Handle("ompi_mpi_op_min", 0x58000002),
            Handle("ompi_mpi_op_max", 0x58000001)
        );
        InPlace = open ? 1 : -1;
        NoStatus = open ? 0 : 1;
        types[ScalarType.Float32] = Handle("ompi_mpi_float", 0x4c00040a);
        types[ScalarType.Float64] = Handle("ompi_mpi_double", 0x4c00080b);
        types[ScalarType.Int32] = Handle("ompi_mpi_int", 0x4c000405);
        types[ScalarType.Int64] = Handle("ompi_mpi_long", 0x4c000807);
    }

    public nint World { get; }

    public nint Byte { get; }

    public nint Sum { get; }

    public nint Min { get; }

    public nint Max { get; }

    public nint InPlace { get; }

    /// <summary>MPI_STATUS_IGNORE.</summary>
    public nint NoStatus { get; }

    /// <summary>Joins the world that mpirun, mpiexec or srun started; once a process.</summary>
    /// <param name="names">The libraries to try, in this order: <see cref="OpenMpi"/>, <see cref="Mpich"/>.</param>
    /// <exception cref="UserFault">No MPI is installed, or it does not start.</exception>
    public static MpiLibrary Start(params ReadOnlySpan<string> names)
    {
        // Open MPI, and UCX below MPICH, end a process at signals of which .NET makes exceptions.
        NativeVariables.Set("OMPI_MCA_opal_signal", "");
        NativeVariables.Set("UCX_ERROR_SIGNALS", "");
        MpiLibrary? mpi = null;
        foreach (var name in names)
        {
            if (mpi is null && NativeLibrary.TryLoad(name, out var library))
                mpi = new(library, name == OpenMpi);
        }
        if (mpi is null)
            throw new UserFault(
                "This process has no MPI.",
                found: $"none of {string.Join(", ", names.ToArray())} can be loaded",
                next: "sudo apt-get install openmpi-bin"
            );
        int provided;
        mpi.Check(
            ((delegate* unmanaged[Cdecl]<int*, byte***, int, int*, int>)mpi.Export("MPI_Init_thread"))(
                null,
                null,
                Serialized,
                &provided
            ),
            "MPI_Init_thread"
        );
        // A failure comes back as a code; by default it would end the process without a word of ours.
        mpi.Check(
            ((delegate* unmanaged[Cdecl]<nint, nint, int>)mpi.Export("MPI_Comm_set_errhandler"))(
                mpi.World,
                mpi.Handle("ompi_mpi_errors_return", 0x54000001)
            ),
            "MPI_Comm_set_errhandler"
        );
        mpi.AddSixteenBits(ScalarType.BFloat16, &AddBfloat16);
        mpi.AddSixteenBits(ScalarType.Float16, &AddFloat16);
        return mpi;
    }

    /// <summary>A function of the library.</summary>
    public nint Export(string name) => NativeLibrary.GetExport(library, name);

    /// <summary>MPI's type of a tensor's elements for reductions.</summary>
    public nint TypeOf(ScalarType type) =>
        types.TryGetValue(type, out var known) ? known : throw new ArgumentException($"MPI does not reduce {type}.");

    /// <summary>MPI's operation for a tensor's elements.</summary>
    public nint OpOf(ReduceOp op, ScalarType type) =>
        op switch
        {
            ReduceOp.Sum when sums.TryGetValue(type, out var made) => made,
            _ when sums.ContainsKey(type) => throw new ArgumentException($"MPI takes no {op} of {type}."),
            ReduceOp.Sum => Sum,
            ReduceOp.Min => Min,
            _ => Max,
        };

    public void Check(int code, string verb)
    {
        if (code == 0)
            return;
        var text = stackalloc byte[1024]; // MPI_MAX_ERROR_STRING is 256 or 512
        int length;
        var described = errorString(code, text, &length) == 0 ? Encoding.UTF8.GetString(text, length) : $"code {code}";
        throw new UserFault(
            $"{verb} failed.",
            found: described,
            next: "run again: the run resumes from its last checkpoint"
        )
        {
            Failed = true,
        };
    }

    private nint Handle(string global, int number) => open ? Export(global) : number;

    /// <summary>A type of two bytes, and its sum: MPI has none.</summary>
    private void AddSixteenBits(ScalarType type, delegate* unmanaged[Cdecl]<nint, nint, int*, nint*, void> add)
    {
        nint made = 0,
            op = 0;
        Check(
            ((delegate* unmanaged[Cdecl]<int, nint, nint*, int>)Export("MPI_Type_contiguous"))(2, Byte, &made),
            "MPI_Type_contiguous"
        );
        Check(((delegate* unmanaged[Cdecl]<nint*, int>)Export("MPI_Type_commit"))(&made), "MPI_Type_commit");
        Check(
            ((delegate* unmanaged[Cdecl]<void*, int, nint*, int>)Export("MPI_Op_create"))(add, 1, &op),
            "MPI_Op_create"
        );
        (types[type], sums[type]) = (made, op);
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void AddBfloat16(nint input, nint output, int* count, nint* type)
    {
        var from = (ushort*)input;
        var to = (ushort*)output;
        for (var i = 0; i < *count; i++)
            to[i] = Rounded(Wide(from[i]) + Wide(to[i]));

        static float Wide(ushort half) => BitConverter.UInt32BitsToSingle((uint)half << 16);
        // To the nearest, ties to even; a NaN stays one.
        static ushort Rounded(float value)
        {
            var bits = BitConverter.SingleToUInt32Bits(value);
            return float.IsNaN(value) ? (ushort)0x7fc0 : (ushort)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void AddFloat16(nint input, nint output, int* count, nint* type)
    {
        var from = (Half*)input;
        var to = (Half*)output;
        for (var i = 0; i < *count; i++)
            to[i] = (Half)((float)from[i] + (float)to[i]);
    }
}
