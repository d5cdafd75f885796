using static TorchSharp.torch;

namespace Memopt.Trainer.Distributed;

/// <summary>A world of one rank: no caller asks whether there are others.</summary>
internal sealed class SingleProcessGroup : ProcessGroup
{
    public override int Rank => 0;

    public override int Size => 1;

    public override long[] AllGather(ReadOnlySpan<long> values, TimeSpan? limit = null) => values.ToArray();

    public override IProcessGroup Split(int color, int key) => new SingleProcessGroup();

    public override void Dispose() { }

    protected override void AllReduceCore(Tensor tensor, ReduceOp op) { }

    protected override void ReduceScatterCore(Tensor input, Tensor output, ReduceOp op) => Copy(input, output);

    protected override void AllGatherCore(Tensor input, Tensor output) => Copy(input, output);

    protected override void BroadcastCore(Tensor tensor, int source) { }

    protected override void ExchangeCore(IReadOnlyList<PeerTensor> sends, IReadOnlyList<PeerTensor> receives)
    {
        if (sends.Count != receives.Count)
            throw new ArgumentException($"{sends.Count} tensors are sent to this rank, and {receives.Count} received.");
        for (var i = 0; i < sends.Count; i++)
            Copy(sends[i].Tensor, receives[i].Tensor);
    }

    private static void Copy(Tensor from, Tensor to)
    {
        using var scope = NewDisposeScope();
        _ = to.view(-1).copy_(from.view(-1));
    }
}
