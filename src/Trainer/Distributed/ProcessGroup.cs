using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Distributed;

/// <summary>What every engine checks before it is handed addresses.</summary>
internal abstract class ProcessGroup : IProcessGroup
{
    public abstract int Rank { get; }

    public abstract int Size { get; }

    public void AllReduce(Tensor tensor, ReduceOp op = ReduceOp.Sum)
    {
        Contiguous(tensor);
        if (tensor.numel() > 0)
            AllReduceCore(tensor, op);
    }

    public void ReduceScatter(Tensor input, Tensor output, ReduceOp op = ReduceOp.Sum)
    {
        Slices(whole: input, slice: output);
        if (output.numel() > 0)
            ReduceScatterCore(input, output, op);
    }

    public void AllGather(Tensor input, Tensor output)
    {
        Slices(whole: output, slice: input);
        if (input.numel() > 0)
            AllGatherCore(input, output);
    }

    public void Broadcast(Tensor tensor, int source)
    {
        Contiguous(tensor);
        Peer(source);
        if (tensor.numel() > 0)
            BroadcastCore(tensor, source);
    }

    public void Exchange(IReadOnlyList<PeerTensor> sends, IReadOnlyList<PeerTensor> receives)
    {
        foreach (var (tensor, peer) in sends.Concat(receives))
        {
            Contiguous(tensor);
            Peer(peer);
        }
        ExchangeCore(sends, receives);
    }

    public abstract long[] AllGather(ReadOnlySpan<long> values, TimeSpan? limit = null);

    public abstract IProcessGroup Split(int color, int key);

    public abstract void Dispose();

    protected abstract void AllReduceCore(Tensor tensor, ReduceOp op);

    protected abstract void ReduceScatterCore(Tensor input, Tensor output, ReduceOp op);

    protected abstract void AllGatherCore(Tensor input, Tensor output);

    protected abstract void BroadcastCore(Tensor tensor, int source);

    protected abstract void ExchangeCore(IReadOnlyList<PeerTensor> sends, IReadOnlyList<PeerTensor> receives);

    private void Slices(Tensor whole, Tensor slice)
    {
        Contiguous(whole);
        Contiguous(slice);
        if (whole.numel() != slice.numel() * Size || whole.dtype != slice.dtype)
            throw new ArgumentException(
                $"{slice.numel()} elements of {slice.dtype} are not one of {Size} slices of {whole.numel()} elements "
                    + $"of {whole.dtype}."
            );
    }

    private void Peer(int rank)
    {
        if (rank < 0 || rank >= Size)
            throw new ArgumentException($"Rank {rank} is not in a group of {Size}.");
    }

    private static void Contiguous(Tensor tensor)
    {
        if (!tensor.is_contiguous())
            throw new ArgumentException($"A tensor [{string.Join(", ", tensor.shape)}] that is not contiguous.");
    }
}
