using System.Runtime.InteropServices;

namespace Memopt.Trainer.Native;

/// <summary>Switches of libtorch that it has no C entry points for: C++ functions by their mangled names, the same in
/// every build for the systems where names are mangled so. Where they are missing, what they would switch stays as it
/// is.
/// </summary>
internal static unsafe class TorchContext
{
    private static readonly nint context = Export("_ZN2at13globalContextEv") is var get and not 0
        ? ((delegate* unmanaged<nint>)get)()
        : 0;
    private static readonly delegate* unmanaged<nint, byte, byte, void> deterministic = (delegate* unmanaged<
        nint,
        byte,
        byte,
        void>)Export("_ZN2at7Context26setDeterministicAlgorithmsEbb");
    private static readonly delegate* unmanaged<nint, byte, void> filling = (delegate* unmanaged<
        nint,
        byte,
        void>)Export("_ZN2at7Context39setDeterministicFillUninitializedMemoryEb");

    /// <summary>Until disposed, operators that have a slower way of giving the same bits every time take it, if that
    /// is wanted. For the one operator that needs it, since libtorch refuses others meanwhile.
    /// </summary>
    public static DeterministicScope Deterministic(bool wanted)
    {
        if (wanted && context != 0 && filling != null)
            filling(context, 0); // else every empty tensor is filled, which costs and helps nothing here
        Set(wanted);
        return default;
    }

    /// <summary>Ends with its scope.</summary>
    public readonly struct DeterministicScope : IDisposable
    {
        public void Dispose() => Set(false);
    }

    private static void Set(bool value)
    {
        if (context != 0 && deterministic != null)
            deterministic(context, value ? (byte)1 : (byte)0, 0);
    }

    private static nint Export(string name) =>
        Backend.TorchCpu != 0 && NativeLibrary.TryGetExport(Backend.TorchCpu, name, out var address) ? address : 0;
}
