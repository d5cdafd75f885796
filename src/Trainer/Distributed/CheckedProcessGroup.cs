using Memopt.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Distributed;

/// <summary>Agrees on each verb before it is called: ranks that diverge end with a sentence that names rank and verb,
/// and not with a hang. Costs one exchange of a few numbers a verb; tests use it always, runs where they are asked
/// to.</summary>
internal sealed class CheckedProcessGroup(IProcessGroup group) : IProcessGroup
{
    private long calls;

    private enum Verb
    {
        AllReduce,
        ReduceScatter,
        AllGather,
        Broadcast,
        Exchange,
        AllGatherNumbers,
        Split,
    }

    public int Rank => group.Rank;

    public int Size => group.Size;

    public void AllReduce(Tensor tensor, ReduceOp op = ReduceOp.Sum)
    {
        Agree(Verb.AllReduce, tensor, (int)op);
        group.AllReduce(tensor, op);
    }

    public void ReduceScatter(Tensor input, Tensor output, ReduceOp op = ReduceOp.Sum)
    {
        Agree(Verb.ReduceScatter, input, (int)op);
        group.ReduceScatter(input, output, op);
    }

    public void AllGather(Tensor input, Tensor output)
    {
        Agree(Verb.AllGather, input);
        group.AllGather(input, output);
    }

    public void Broadcast(Tensor tensor, int source)
    {
        Agree(Verb.Broadcast, tensor, source);
        group.Broadcast(tensor, source);
    }

    /// <summary>Sends and receives differ between ranks: each pair of ranks must agree on what goes between
    /// them.</summary>
    public void Exchange(IReadOnlyList<PeerTensor> sends, IReadOnlyList<PeerTensor> receives)
    {
        Agree(Verb.Exchange);
        var mine = new long[2 * Size]; // bytes to each rank, then bytes from each
        foreach (var (tensor, peer) in sends)
            mine[peer] += Bytes(tensor);
        foreach (var (tensor, peer) in receives)
            mine[Size + peer] += Bytes(tensor);
        var all = group.AllGather(mine);
        for (var from = 0; from < Size; from++)
        for (var to = 0; to < Size; to++)
        {
            var (sent, expected) = (all[from * mine.Length + to], all[to * mine.Length + Size + from]);
            if (sent != expected)
                throw Diverged(
                    $"rank {from} sends {sent:N0} bytes to rank {to}, which expects {expected:N0} (verb {calls})"
                );
        }
        group.Exchange(sends, receives);
    }

    public long[] AllGather(ReadOnlySpan<long> values, TimeSpan? limit = null)
    {
        Agree(Verb.AllGatherNumbers, detail: values.Length, limit: limit);
        return group.AllGather(values, limit);
    }

    public IProcessGroup Split(int color, int key)
    {
        Agree(Verb.Split);
        return new CheckedProcessGroup(group.Split(color, key));
    }

    public void Dispose() => group.Dispose();

    private void Agree(Verb verb, Tensor? tensor = null, int detail = 0, TimeSpan? limit = null)
    {
        calls++;
        ReadOnlySpan<long> mine =
        [
            calls,
            (long)verb,
            tensor is null ? -1 : tensor.numel(),
            tensor is null ? -1 : (long)tensor.dtype,
            detail,
        ];
        var all = group.AllGather(mine, limit);
        var others = all.Chunk(mine.Length).ToList();
        if (others.TrueForAll(other => other.AsSpan().SequenceEqual(all.AsSpan(0, other.Length))))
            return;
        throw Diverged(string.Join("; ", others.Select((call, rank) => $"rank {rank} calls {Text(call)}")));
    }

    private static UserFault Diverged(string found) =>
        new(
            "The ranks do not call the same verbs.",
            found: found,
            next: "report this as a bug of memopt; the run resumes from its last checkpoint"
        )
        {
            Failed = true,
        };

    private static string Text(long[] call) =>
        $"{(Verb)call[1]}"
        + (call[2] < 0 ? "" : $" of {call[2]:N0} elements of {(ScalarType)call[3]}")
        + $" ({call[4]}; verb {call[0]})";

    private static long Bytes(Tensor tensor) => tensor.numel() * tensor.element_size();
}
