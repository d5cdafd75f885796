using System.Diagnostics;
using Memopt.Core;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Distributed;

/// <summary>Ranks that mpirun started: the engine of CPUs, of MPI clusters and of tests. Tensors of a GPU go through
/// the host. Every verb is a non-blocking one that is polled with a limit, since MPI itself waits for a frozen rank
/// without end.</summary>
internal sealed unsafe class MpiProcessGroup : ProcessGroup
{
    private const long Most = 1 << 30; // counts are int

    // A sleep of a millisecond makes a wait of this length a few percent longer.
    private static readonly TimeSpan busy = TimeSpan.FromMilliseconds(20);

    private readonly MpiLibrary mpi;
    private readonly nint comm;
    private readonly bool world;
    private readonly TimeSpan limit;

    private MpiProcessGroup(MpiLibrary mpi, nint comm, bool world, TimeSpan limit)
    {
        (this.mpi, this.comm, this.world, this.limit) = (mpi, comm, world, limit);
        int rank,
            size;
        var get = (delegate* unmanaged[Cdecl]<nint, int*, int>)mpi.Export("MPI_Comm_rank");
        mpi.Check(get(comm, &rank), "MPI_Comm_rank");
        get = (delegate* unmanaged[Cdecl]<nint, int*, int>)mpi.Export("MPI_Comm_size");
        mpi.Check(get(comm, &size), "MPI_Comm_size");
        (Rank, Size) = (rank, size);
    }

    public override int Rank { get; }

    public override int Size { get; }

    /// <summary>The world of all ranks. When it is disposed, this process leaves it.</summary>
    /// <param name="limit">A verb that takes longer is a fault.</param>
    /// <param name="libraries">As <see cref="MpiLibrary.Start"/> takes them.</param>
    public static MpiProcessGroup Join(TimeSpan limit, params ReadOnlySpan<string> libraries)
    {
        var mpi = MpiLibrary.Start(libraries);
        return new(mpi, mpi.World, world: true, limit);
    }

    /// <summary>Ends every rank of the world with an exit code; a rank that fails calls it, for the others would
    /// wait.</summary>
    public void Abort(int code) =>
        _ = ((delegate* unmanaged[Cdecl]<nint, int, int>)mpi.Export("MPI_Abort"))(mpi.World, code);

    public override long[] AllGather(ReadOnlySpan<long> values, TimeSpan? limit = null)
    {
        var all = new long[values.Length * Size];
        values.CopyTo(all.AsSpan(Rank * values.Length));
        if (values.Length == 0)
            return all;
        fixed (long* address = all)
            AllGather(mpi.InPlace, (nint)address, values.Length * sizeof(long), limit);
        return all;
    }

    public override IProcessGroup Split(int color, int key)
    {
        nint made = 0;
        var split = (delegate* unmanaged[Cdecl]<nint, int, int, nint*, int>)mpi.Export("MPI_Comm_split");
        mpi.Check(split(comm, color, key, &made), "MPI_Comm_split");
        return new MpiProcessGroup(mpi, made, world: false, limit);
    }

    public override void Dispose()
    {
        if (world)
        {
            _ = ((delegate* unmanaged[Cdecl]<int>)mpi.Export("MPI_Finalize"))();
            return;
        }
        var free = comm;
        _ = ((delegate* unmanaged[Cdecl]<nint*, int>)mpi.Export("MPI_Comm_free"))(&free);
    }

    protected override void AllReduceCore(Tensor tensor, ReduceOp op)
    {
        using var host = new Staged(tensor, reads: true, writes: true);
        var (type, how) = (mpi.TypeOf(tensor.dtype), mpi.OpOf(op, tensor.dtype));
        var call = (delegate* unmanaged[Cdecl]<nint, nint, int, nint, nint, nint, nint*, int>)
            mpi.Export("MPI_Iallreduce");
        for (long at = 0; at < tensor.numel(); at += Most)
        {
            nint request = 0;
            var count = (int)Math.Min(Most, tensor.numel() - at);
            var address = host.Address + (nint)(at * tensor.element_size());
            mpi.Check(call(mpi.InPlace, address, count, type, how, comm, &request), "MPI_Iallreduce");
            Wait([request], "AllReduce");
        }
    }

    protected override void ReduceScatterCore(Tensor input, Tensor output, ReduceOp op)
    {
        using var from = new Staged(input, reads: true, writes: false);
        using var to = new Staged(output, reads: false, writes: true);
        if (output.numel() > Most)
            throw new ArgumentException($"MPI counts no slices of {output.numel():N0} elements.");
        nint request = 0;
        var call = (delegate* unmanaged[Cdecl]<nint, nint, int, nint, nint, nint, nint*, int>)
            mpi.Export("MPI_Ireduce_scatter_block");
        mpi.Check(
            call(
                from.Address,
                to.Address,
                (int)output.numel(),
                mpi.TypeOf(input.dtype),
                mpi.OpOf(op, input.dtype),
                comm,
                &request
            ),
            "MPI_Ireduce_scatter_block"
        );
        Wait([request], "ReduceScatter");
    }

    protected override void AllGatherCore(Tensor input, Tensor output)
    {
        using var whole = new Staged(output, reads: false, writes: true);
        using var slice = new Staged(input, reads: true, writes: false);
        var bytes = input.numel() * input.element_size();
        if (bytes > int.MaxValue)
            throw new ArgumentException($"MPI counts no slices of {bytes:N0} bytes.");
        var place = whole.Address + (nint)(Rank * bytes);
        if (slice.Address != place)
            Buffer.MemoryCopy((void*)slice.Address, (void*)place, bytes, bytes);
        AllGather(mpi.InPlace, whole.Address, (int)bytes);
    }

    protected override void BroadcastCore(Tensor tensor, int source)
    {
        using var host = new Staged(tensor, reads: Rank == source, writes: Rank != source);
        var bytes = tensor.numel() * tensor.element_size();
        var call = (delegate* unmanaged[Cdecl]<nint, int, nint, int, nint, nint*, int>)mpi.Export("MPI_Ibcast");
        for (long at = 0; at < bytes; at += Most)
        {
            nint request = 0;
            var count = (int)Math.Min(Most, bytes - at);
            mpi.Check(call(host.Address + (nint)at, count, mpi.Byte, source, comm, &request), "MPI_Ibcast");
            Wait([request], "Broadcast");
        }
    }

    protected override void ExchangeCore(IReadOnlyList<PeerTensor> sends, IReadOnlyList<PeerTensor> receives)
    {
        var staged = new List<Staged>();
        var requests = new List<nint>();
        try
        {
            foreach (var (tensor, peer) in receives)
                Post("MPI_Irecv", tensor, peer, new Staged(tensor, reads: false, writes: true));
            foreach (var (tensor, peer) in sends)
                Post("MPI_Isend", tensor, peer, new Staged(tensor, reads: true, writes: false));
            Wait([.. requests], "Exchange");
        }
        finally
        {
            staged.ForEach(one => one.Dispose());
        }

        void Post(string verb, Tensor tensor, int peer, Staged host)
        {
            staged.Add(host);
            var bytes = tensor.numel() * tensor.element_size();
            var call = (delegate* unmanaged[Cdecl]<nint, int, nint, int, int, nint, nint*, int>)mpi.Export(verb);
            for (long at = 0; at < bytes; at += Most)
            {
                nint request = 0;
                var count = (int)Math.Min(Most, bytes - at);
                mpi.Check(call(host.Address + (nint)at, count, mpi.Byte, peer, 0, comm, &request), verb);
                requests.Add(request);
            }
        }
    }

    private void AllGather(nint send, nint receive, int bytes, TimeSpan? most = null)
    {
        nint request = 0;
        var call = (delegate* unmanaged[Cdecl]<nint, int, nint, nint, int, nint, nint, nint*, int>)
            mpi.Export("MPI_Iallgather");
        mpi.Check(call(send, bytes, mpi.Byte, receive, bytes, mpi.Byte, comm, &request), "MPI_Iallgather");
        Wait([request], "AllGather", most);
    }

    /// <summary>Polls until all requests are done.</summary>
    private void Wait(nint[] requests, string verb, TimeSpan? most = null)
    {
        var patience = most ?? limit;
        var test = (delegate* unmanaged[Cdecl]<nint*, int*, nint, int>)mpi.Export("MPI_Test");
        var began = Stopwatch.GetTimestamp();
        for (var i = 0; i < requests.Length; i++)
        {
            while (true)
            {
                int done;
                fixed (nint* request = &requests[i])
                    mpi.Check(test(request, &done, mpi.NoStatus), verb);
                if (done != 0)
                    break;
                var waited = Stopwatch.GetElapsedTime(began);
                if (patience != Timeout.InfiniteTimeSpan && waited > patience)
                    throw new UserFault(
                        $"Rank {Rank} of {Size} waited for the others longer than {patience.TotalSeconds:N0} s.",
                        found: $"{verb} did not end: another rank is frozen, or calls another verb",
                        next: "run again: the run resumes from its last checkpoint"
                    )
                    {
                        Failed = true,
                    };
                // A rank that shares its core lets the others compute; one that waits for long leaves the core.
                if (waited < busy)
                    Thread.Yield();
                else
                    Thread.Sleep(1);
            }
        }
    }

    /// <summary>The address of a tensor's elements on the host; those of a GPU are copied there and back.</summary>
    private sealed class Staged : IDisposable
    {
        private readonly Tensor tensor;
        private readonly Tensor host;
        private readonly bool writes;

        public Staged(Tensor tensor, bool reads, bool writes)
        {
            (this.tensor, this.writes) = (tensor, writes);
            host =
                tensor.device_type == DeviceType.CPU ? tensor
                : reads ? tensor.cpu()
                : empty(tensor.shape, tensor.dtype, CPU);
            Address = Aten.DataPointer(host);
        }

        public nint Address { get; }

        public void Dispose()
        {
            if (ReferenceEquals(host, tensor))
                return;
            if (writes)
                _ = tensor.copy_(host);
            host.Dispose();
        }
    }
}
