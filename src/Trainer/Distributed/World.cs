using System.Runtime.ExceptionServices;
using System.Text.Json;
using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Native;
using TorchSharp;

namespace Memopt.Trainer.Distributed;

/// <summary>The ranks of a run. Rank 0, the main one, records the run, writes checkpoints and results, and
/// prints.</summary>
internal sealed class World(IProcessGroup group, RankPlace place, torch.Device? device, DeviceMesh? mesh = null)
    : IDisposable
{
    // A rank that waits longer for another ends the run. Steps of minutes and slow disks stay below.
    private static readonly TimeSpan limit = TimeSpan.FromMinutes(30);

    /// <summary>This process alone.</summary>
    public static World Single { get; } = new(new SingleProcessGroup(), new(0, 1, 0, 1, "none"), device: null);

    public IProcessGroup Group => group;

    /// <summary>The ranks along the axes of the mesh. Until <see cref="Arrange"/> they are all data parallel.</summary>
    public DeviceMesh Mesh { get; } = mesh ?? DeviceMesh.DataParallel(group);

    public int Rank => group.Rank;

    public int Size => group.Size;

    /// <summary>Ranks of this host, which share its memory.</summary>
    public int LocalSize => place.LocalSize;

    public bool IsMain => group.Rank == 0;

    /// <summary>Joins the ranks that a launcher has started. Waits until all of them join.</summary>
    /// <param name="place">This rank's place; null is a world of one.</param>
    /// <param name="backend">libtorch.</param>
    /// <param name="library">By which they communicate.</param>
    /// <param name="check">Whether every verb is agreed on before it is called.</param>
    public static World Join(RankPlace? place, Backend backend, DistributedBackend library, bool check)
    {
        if (place is null)
            return Single;
        if (library == DistributedBackend.Nccl && backend.Kind != "cuda")
            throw new UserFault(
                "NCCL needs GPUs.",
                found: $"distributed.backend is nccl, and the ranks compute on {backend.Kind}",
                next: "set distributed.backend to auto or mpi, or use --backend cuda"
            );
        IProcessGroup group =
            backend.Kind == "cuda" && library != DistributedBackend.Mpi
                ? NcclProcessGroup.Join(NcclLibrary.Load(backend.Folder), place.Rank, place.Size, backend.Device, limit)
                : MpiProcessGroup.Join(
                    limit,
                    // Each starts ranks of its own library only.
                    place.Launcher == RankPlace.Mpich
                        ? [MpiLibrary.Mpich, MpiLibrary.OpenMpi]
                        : [MpiLibrary.OpenMpi, MpiLibrary.Mpich]
                );
        if (group.Rank != place.Rank || group.Size != place.Size)
            throw new UserFault(
                "The ranks did not come together.",
                found: $"{place.Launcher} started rank {place.Rank} of {place.Size}, which joined as rank {group.Rank} "
                    + $"of {group.Size}",
                next: "use the mpirun of the MPI library that is installed: mpirun --version"
            )
            {
                Failed = true,
            };
        return new(check ? new CheckedProcessGroup(group) : group, place, backend.Device);
    }

    /// <summary>The same ranks, laid out as the settings say. All ranks call it.</summary>
    /// <exception cref="UserFault">The number of ranks is no multiple of the axes' sizes.</exception>
    public World Arrange(DistributedConfig config) =>
        config is { Tensor: 1, Context: 1, Pipeline: 1 }
            ? this
            : new(group, place, device, DeviceMesh.Of(group, config.Tensor, config.Context, config.Pipeline));

    /// <summary>Runs an action on the main rank, then on the others, which find what the main rank has made: a
    /// download, a cache, a cleared folder. It may take any time.</summary>
    public T MainFirst<T>(Func<T> action)
    {
        var mine = IsMain ? action() : default!;
        group.Barrier(Timeout.InfiniteTimeSpan);
        return IsMain ? mine : action();
    }

    /// <summary>Runs an action on every rank. When memory runs out on one of them, the action fails for want of memory
    /// on all, so that all step down alike. The action calls no verb, to which another rank might not come, unless
    /// every rank takes part in all of them whatever fails.</summary>
    public T RunOnAll<T>(Func<T> action)
    {
        T result = default!;
        ExceptionDispatchInfo? mine = null;
        try
        {
            result = action();
        }
        catch (Exception e) when (Size > 1 && OutOfMemory.Is(e))
        {
            mine = ExceptionDispatchInfo.Capture(e);
        }
        var failed = group.AllGather([mine is null ? 0 : 1]);
        mine?.Throw();
        if (Array.IndexOf(failed, 1) is var rank and >= 0)
        {
            (result as IDisposable)?.Dispose();
            throw OutOfMemory.OnRank(rank, null);
        }
        return result;
    }

    /// <summary>The same for an action without a result.</summary>
    public void RunOnAll(Action action) =>
        RunOnAll(() =>
        {
            action();
            return true;
        });

    /// <summary>The least value of any rank; null where a rank does not know its own.</summary>
    public long? Least(long? mine) => group.Agree([mine ?? -1], ReduceOp.Min)[0] is var least and >= 0 ? least : null;

    /// <summary>Throws on every rank when memory ran out on one.</summary>
    /// <param name="why">The message where memory ran out on this rank, else null.</param>
    public void ThrowIfExhausted(string? why)
    {
        if (Size > 1 && Array.IndexOf(group.AllGather([why is null ? 0 : 1]), 1) is var rank and >= 0)
            throw OutOfMemory.OnRank(rank, why);
    }

    /// <summary>A value that the main rank computes, on every rank. It travels as JSON.</summary>
    public T FromMain<T>(Func<T> compute) => Size == 1 ? compute() : AllGather(IsMain ? compute() : default!)[0];

    /// <summary>The values of all ranks, in their order, on every rank. They travel as JSON.</summary>
    public IReadOnlyList<T> AllGather<T>(T mine)
    {
        if (Size == 1)
            return [mine];
        var bytes = JsonSerializer.SerializeToUtf8Bytes(mine);
        using var scope = torch.NewDisposeScope();
        var lengths = group.AllGather([bytes.Length]);
        var longest = lengths.Max();
        var sent = torch.tensor([.. bytes, .. new byte[longest - bytes.Length]], torch.uint8).to(device!);
        var all = torch.empty([longest * Size], torch.uint8, device);
        group.AllGather(sent, all);
        var received = all.cpu().data<byte>().ToArray();
        return
        [
            .. lengths.Select(
                (length, rank) => JsonSerializer.Deserialize<T>(received.AsSpan((int)(rank * longest), (int)length))!
            ),
        ];
    }

    /// <summary>Runs an action on the main rank while the others wait; fails on all for want of memory, as
    /// <see cref="RunOnAll"/>.</summary>
    public T? RunOnMain<T>(Func<T> action) => RunOnAll(() => IsMain ? action() : default);

    /// <summary>The same for an action without a result.</summary>
    public void RunOnMain(Action action) =>
        RunOnAll(() =>
        {
            if (IsMain)
                action();
        });

    /// <summary>Leaves the ranks; waits until all leave.</summary>
    public void Dispose()
    {
        Mesh.Dispose();
        group.Dispose();
    }
}
