using Memopt.Trainer.Native;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>An argument of a kernel: a tensor's address, or a number as the kernel declares it.</summary>
internal readonly struct KernelArg
{
    private KernelArg(ulong bits) => Bits = bits;

    public ulong Bits { get; }

    public static KernelArg Null => new(0);

    public static KernelArg Maybe(Tensor? tensor) => tensor is null ? Null : tensor;

    public static implicit operator KernelArg(Tensor tensor) => new((ulong)Aten.DataPointer(tensor));

    public static implicit operator KernelArg(long value) => new((ulong)value);

    public static implicit operator KernelArg(int value) => new((uint)value);

    public static implicit operator KernelArg(float value) => new(BitConverter.SingleToUInt32Bits(value));
}
