using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>Arrays of one length on the host, a piece of each at a time on the device: one piece is computed while
/// the next comes and the last goes.</summary>
internal sealed class HostArrays : IDisposable
{
    private readonly Tensor[] arrays;
    private readonly Device device;
    private readonly List<Tensor[]> buffers = [];
    private readonly Cuda.Stream? incoming,
        outgoing;
    private readonly Cuda.Event[] arrived = [],
        left = [];
    private readonly Cuda.Event? computed;
    private readonly long piece;

    public HostArrays(Tensor[] arrays, Device device)
    {
        (this.arrays, this.device) = (arrays, device);
        if (device.type != DeviceType.CUDA)
            return;
        piece = Math.Min(arrays[0].numel(), Footprints.OptimizerPiece);
        var pinned = 0;
        try
        {
            for (; pinned < arrays.Length; pinned++)
                Cuda.Pin(Aten.DataPointer(arrays[pinned]), arrays[pinned].numel() * 4);
        }
        catch
        {
            while (pinned-- > 0)
                Cuda.Unpin(Aten.DataPointer(arrays[pinned]));
            throw;
        }
        (incoming, outgoing, computed) = (new(), new(), new());
        (arrived, left) = ([new(), new()], [new(), new()]);
    }

    /// <summary>Takes the device memory for the pieces.</summary>
    public void AllocateBuffers()
    {
        while (incoming is not null && buffers.Count < 2)
        {
            using var scope = NewDisposeScope();
            buffers.Add([.. arrays.Select(_ => empty([piece], float32, device))]);
            foreach (var part in buffers[^1])
                part.DetachFromDisposeScope();
        }
    }

    /// <summary>The device memory for the pieces.</summary>
    public IEnumerable<Tensor> Buffers => buffers.SelectMany(buffer => buffer);

    public void ForEach(Action<Tensor[], long, long> step)
    {
        AllocateBuffers();
        if (incoming is null)
        {
            step(arrays, 0, arrays[0].numel());
            return;
        }
        var total = arrays[0].numel();
        incoming.WaitForCompute(computed!); // buffers made a moment ago may have been others' until then
        for (long from = 0, n = 0; from < total; from += piece, n++)
        {
            using var scope = NewDisposeScope();
            var (count, turn) = (Math.Min(piece, total - from), (int)(n % 2));
            var buffer = buffers[turn];
            incoming!.WaitFor(left[turn]);
            for (var i = 0; i < arrays.Length; i++)
                incoming.ToDevice(
                    Aten.DataPointer(buffer[i]),
                    Aten.DataPointer(arrays[i]) + (nint)(from * 4),
                    count * 4
                );
            incoming.Record(arrived[turn]);
            arrived[turn].MakeComputeWait();
            step([.. buffer.Select(part => part.narrow(0, 0, count))], from, count);
            outgoing!.WaitForCompute(computed!);
            for (var i = 0; i < arrays.Length; i++)
                outgoing.ToHost(Aten.DataPointer(arrays[i]) + (nint)(from * 4), Aten.DataPointer(buffer[i]), count * 4);
            outgoing.Record(left[turn]);
        }
        outgoing!.Wait(); // the host may read them now, and so may the next step
    }

    public void Dispose()
    {
        incoming?.Dispose();
        outgoing?.Dispose();
        computed?.Dispose();
        foreach (var @event in arrived.Concat(left))
            @event.Dispose();
        foreach (var buffer in Buffers)
            buffer.Dispose();
        foreach (var array in incoming is null ? [] : arrays)
            Cuda.Unpin(Aten.DataPointer(array));
    }
}
