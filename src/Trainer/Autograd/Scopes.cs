using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>What of a dispose scope outlives it.</summary>
internal static class Scopes
{
    /// <summary>Gives everything in the scope to the one around it.</summary>
    public static void MoveAllOut(this DisposeScope scope)
    {
        foreach (var item in scope.DisposablesView.OfType<Tensor>().ToArray())
            item.MoveToOuterDisposeScope();
    }

    /// <summary>Takes everything out of the scope; the caller disposes it.</summary>
    public static IDisposable[] TakeAll(this DisposeScope scope)
    {
        var all = scope.DisposablesView.ToArray();
        scope.Detach(all);
        return all;
    }

    /// <summary>Numbers on a device. The copy does not make the host wait for what the device is doing.</summary>
    public static Tensor Upload<E>(E[] values, Device device)
        where E : unmanaged
    {
        Tensor host = values switch
        {
            long[] longs => tensor(longs),
            int[] ints => tensor(ints),
            float[] floats => tensor(floats),
            _ => throw new ArgumentException(typeof(E).Name, nameof(values)),
        };
        if (device.type != DeviceType.CUDA || values.Length == 0)
            return host.to(device);
        using (host)
        using (var pinned = host.pin_memory())
            return pinned.to(device, non_blocking: true);
    }
}
