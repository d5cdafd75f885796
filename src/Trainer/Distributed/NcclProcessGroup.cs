using System.Diagnostics;
using Memopt.Core;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Distributed;

/// <summary>Ranks on GPUs, one each. Verbs are queued on libtorch's current stream, so that they are in order with the
/// kernels around them. Nothing here sleeps: a poll that sleeps a millisecond costs a millisecond a verb.</summary>
internal sealed unsafe class NcclProcessGroup : ProcessGroup
{
    private readonly NcclLibrary nccl;
    private readonly nint comm;
    private readonly Device device;
    private readonly TimeSpan limit;
    private readonly delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int> allReduce;
    private readonly delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int> reduceScatter;
    private readonly delegate* unmanaged[Cdecl]<nint, nint, nuint, int, nint, nint, int> allGather;

    private NcclProcessGroup(NcclLibrary nccl, nint comm, int rank, int size, Device device, TimeSpan limit)
    {
        (this.nccl, this.comm, this.device, this.limit) = (nccl, comm, device, limit);
        (Rank, Size) = (rank, size);
        allReduce = (delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int>)
            nccl.Export("ncclAllReduce");
        reduceScatter = (delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int>)
            nccl.Export("ncclReduceScatter");
        allGather = (delegate* unmanaged[Cdecl]<nint, nint, nuint, int, nint, nint, int>)nccl.Export("ncclAllGather");
    }

    public override int Rank { get; }

    public override int Size { get; }

    /// <summary>Joins a world. With more than one rank, NCCL_COMM_ID=host:port must be in the environment that the
    /// process was started with: NCCL reads it, and rank 0 listens there.</summary>
    /// <param name="nccl">The library.</param>
    /// <param name="rank">This rank.</param>
    /// <param name="size">All ranks.</param>
    /// <param name="device">The GPU of this rank.</param>
    /// <param name="limit">How long a verb may take to be queued, and the world to come together.</param>
    public static NcclProcessGroup Join(NcclLibrary nccl, int rank, int size, Device device, TimeSpan limit)
    {
        NcclLibrary.UniqueId id;
        nint comm = 0;
        var config = NcclLibrary.Config.NonBlocking;
        var get = (delegate* unmanaged[Cdecl]<NcclLibrary.UniqueId*, int>)nccl.Export("ncclGetUniqueId");
        nccl.Check(get(&id), 0, "ncclGetUniqueId");
        var join = (delegate* unmanaged[Cdecl]<nint*, int, NcclLibrary.UniqueId, int, NcclLibrary.Config*, int>)
            nccl.Export("ncclCommInitRankConfig");
        nccl.Check(join(&comm, size, id, rank, &config), 0, "ncclCommInitRankConfig");
        Settle(nccl, comm, limit, "ncclCommInitRankConfig");
        return new(nccl, comm, rank, size, device, limit);
    }

    /// <summary>Without a limit: the host waits for the GPU, which gives nothing up.</summary>
    public override long[] AllGather(ReadOnlySpan<long> values, TimeSpan? limit = null)
    {
        if (values.Length == 0)
            return [];
        using var scope = NewDisposeScope();
        var mine = tensor(values.ToArray(), int64).to(device);
        var all = empty([(long)values.Length * Size], int64, device);
        AllGatherCore(mine, all);
        return all.cpu().data<long>().ToArray();
    }

    public override IProcessGroup Split(int color, int key)
    {
        nint made = 0;
        var config = NcclLibrary.Config.NonBlocking;
        var split = (delegate* unmanaged[Cdecl]<nint, int, int, nint*, NcclLibrary.Config*, int>)
            nccl.Export("ncclCommSplit");
        nccl.Check(split(comm, color, key, &made, &config), comm, "ncclCommSplit");
        Settle(nccl, comm, limit, "ncclCommSplit");
        Settle(nccl, made, limit, "ncclCommSplit");
        return new NcclProcessGroup(
            nccl,
            made,
            Ask(made, "ncclCommUserRank"),
            Ask(made, "ncclCommCount"),
            device,
            limit
        );
    }

    /// <summary>Ends a communicator that is in use: kernels that wait for a dead rank end too.</summary>
    public void Abort() => _ = ((delegate* unmanaged[Cdecl]<nint, int>)nccl.Export("ncclCommAbort"))(comm);

    public override void Dispose()
    {
        _ = ((delegate* unmanaged[Cdecl]<nint, int>)nccl.Export("ncclCommFinalize"))(comm);
        Settle(nccl, comm, limit, "ncclCommFinalize");
        _ = ((delegate* unmanaged[Cdecl]<nint, int>)nccl.Export("ncclCommDestroy"))(comm);
    }

    protected override void AllReduceCore(Tensor tensor, ReduceOp op)
    {
        var address = Aten.DataPointer(tensor);
        Queued(
            allReduce(
                address,
                address,
                (nuint)tensor.numel(),
                NcclLibrary.TypeOf(tensor.dtype),
                NcclLibrary.OpOf(op),
                comm,
                Aten.CurrentStream()
            ),
            "ncclAllReduce"
        );
    }

    protected override void ReduceScatterCore(Tensor input, Tensor output, ReduceOp op) =>
        Queued(
            reduceScatter(
                Aten.DataPointer(input),
                Aten.DataPointer(output),
                (nuint)output.numel(),
                NcclLibrary.TypeOf(input.dtype),
                NcclLibrary.OpOf(op),
                comm,
                Aten.CurrentStream()
            ),
            "ncclReduceScatter"
        );

    protected override void AllGatherCore(Tensor input, Tensor output) =>
        Queued(
            allGather(
                Aten.DataPointer(input),
                Aten.DataPointer(output),
                (nuint)input.numel(),
                NcclLibrary.TypeOf(input.dtype),
                comm,
                Aten.CurrentStream()
            ),
            "ncclAllGather"
        );

    protected override void BroadcastCore(Tensor tensor, int source)
    {
        var address = Aten.DataPointer(tensor);
        var broadcast = (delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int>)
            nccl.Export("ncclBroadcast");
        Queued(
            broadcast(
                address,
                address,
                (nuint)tensor.numel(),
                NcclLibrary.TypeOf(tensor.dtype),
                source,
                comm,
                Aten.CurrentStream()
            ),
            "ncclBroadcast"
        );
    }

    protected override void ExchangeCore(IReadOnlyList<PeerTensor> sends, IReadOnlyList<PeerTensor> receives)
    {
        if (sends.Count + receives.Count == 0)
            return;
        var send = Transfer("ncclSend");
        var receive = Transfer("ncclRecv");
        Group("ncclGroupStart");
        foreach (var (tensor, peer) in sends)
            Post(send, tensor, peer, "ncclSend");
        foreach (var (tensor, peer) in receives)
            Post(receive, tensor, peer, "ncclRecv");
        Group("ncclGroupEnd");
        Settle(nccl, comm, limit, "ncclGroupEnd");

        delegate* unmanaged[Cdecl]<nint, nuint, int, int, nint, nint, int> Transfer(string name) =>
            (delegate* unmanaged[Cdecl]<nint, nuint, int, int, nint, nint, int>)nccl.Export(name);

        void Group(string name) => nccl.Check(((delegate* unmanaged[Cdecl]<int>)nccl.Export(name))(), comm, name);
    }

    private void Post(
        delegate* unmanaged[Cdecl]<nint, nuint, int, int, nint, nint, int> call,
        Tensor tensor,
        int peer,
        string name
    ) =>
        nccl.Check(
            call(
                Aten.DataPointer(tensor),
                (nuint)tensor.numel(),
                NcclLibrary.TypeOf(tensor.dtype),
                peer,
                comm,
                Aten.CurrentStream()
            ),
            comm,
            name
        );

    private int Ask(nint of, string name)
    {
        int value;
        nccl.Check(((delegate* unmanaged[Cdecl]<nint, int*, int>)nccl.Export(name))(of, &value), of, name);
        return value;
    }

    private void Queued(int code, string verb)
    {
        nccl.Check(code, comm, verb);
        if (code == NcclLibrary.InProgress)
            Settle(nccl, comm, limit, verb);
    }

    /// <summary>Polls until a communicator has done a call that it took without blocking.</summary>
    private static void Settle(NcclLibrary nccl, nint comm, TimeSpan limit, string verb)
    {
        var began = Stopwatch.GetTimestamp();
        while (true)
        {
            var state = nccl.State(comm);
            if (state == NcclLibrary.Success)
                return;
            nccl.Check(state, comm, verb);
            if (Stopwatch.GetElapsedTime(began) > limit)
                throw new UserFault(
                    $"{verb} did not end within {limit.TotalSeconds:N0} s.",
                    found: "another rank did not come, is frozen, or calls another verb",
                    next: "look at the logs of the other ranks; run again: the run resumes from its last checkpoint"
                )
                {
                    Failed = true,
                };
        }
    }
}
