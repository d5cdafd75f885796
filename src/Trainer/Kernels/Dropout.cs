using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>Masks of dropout that follow from a seed and the place in the tensor alone (SplitMix64, Steele et al.
/// 2014), the same on every device.</summary>
internal static class Dropout
{
    private static readonly Kernel kernel = new("Dropout.cu");

    /// <summary>0 where dropped, 1 / (1 − p) where kept.</summary>
    /// <param name="shape">Of the mask.</param>
    /// <param name="type">Of the mask.</param>
    /// <param name="device">Where it lies.</param>
    /// <param name="p">Share that is dropped, at least 0 and below 1.</param>
    /// <param name="seed">Of the draw.</param>
    /// <param name="rows">(shape[0]) int64: the numbers of these rows in a larger mask; null counts from 0.</param>
    public static Tensor Mask(long[] shape, ScalarType type, Device device, double p, long seed, Tensor? rows = null)
    {
        var dropped = (ulong)(p * (1L << 32));
        var kept = (float)(1 / (1 - p));
        if (!Kernel.Supports(device, type))
            return Reference(shape, type, device, dropped, kept, (ulong)seed, rows);
        var y = empty(shape, type, device);
        var count = y.numel();
        kernel.Launch(
            "mask",
            type,
            ((count + 255) / 256, 1),
            (256, 1),
            [y, seed, count, (long)dropped, kept, KernelArg.Maybe(rows), Width(shape)]
        );
        return y;
    }

    internal static Tensor Reference(
        long[] shape,
        ScalarType type,
        Device device,
        ulong dropped,
        float kept,
        ulong seed,
        Tensor? rows = null
    )
    {
        using var scope = NewDisposeScope();
        var mask = empty(shape, float32);
        unsafe
        {
            // Straight into libtorch's memory: arrays of this size would keep the collector busy.
            var values = (float*)Aten.DataPointer(mask);
            var (count, width) = (mask.numel(), Width(shape));
            var numbers = rows is null ? null : (long*)Aten.DataPointer(rows.cpu());
            for (long i = 0; i < count; i++)
            {
                unchecked
                {
                    var place = numbers is null ? i : numbers[i / width] * width + i % width;
                    var z = seed + 0x9E3779B97F4A7C15UL * (ulong)(place + 1);
                    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9UL;
                    z = (z ^ (z >> 27)) * 0x94D049BB133111EBUL;
                    values[i] = ((z ^ (z >> 31)) >> 32) < dropped ? 0 : kept;
                }
            }
        }
        return mask.to(type, device).MoveToOuterDisposeScope();
    }

    /// <summary>Numbers of a row.</summary>
    private static long Width(long[] shape) => shape.Skip(1).Aggregate(1L, (a, b) => a * b);
}
