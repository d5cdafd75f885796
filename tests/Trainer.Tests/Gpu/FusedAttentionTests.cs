using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Gpu;

/// <summary>The fused kernels against attention with a mask in fp32, out and back.</summary>
[Trait(Gpu.Trait, Gpu.Name)]
[Collection(ExclusiveCollection.Name)]
public sealed class FusedAttentionTests
{
    [GpuTheory]
    [
        InlineData("BFloat16", 2, 77, 28, 4, 128, 0, false, true),
        InlineData("Float16", 1, 130, 4, 4, 64, 0, false, true),
        InlineData("BFloat16", 2, 300, 8, 2, 80, 33, false, true)
    ]
    [
        InlineData("BFloat16", 2, 256, 6, 3, 64, 0, true, true),
        InlineData("BFloat16", 1, 512, 4, 1, 128, 100, true, false)
    ]
    [
        InlineData("BFloat16", 1, 1024, 14, 2, 64, 0, false, false),
        InlineData("BFloat16", 2, 1152, 8, 2, 128, 0, false, false),
        InlineData("BFloat16", 2, 1152, 8, 2, 128, 0, false, true)
    ]
    public void Fused_attention_equals_attention_with_a_mask(
        string typeName,
        int batch,
        int length,
        int heads,
        int groups,
        int dim,
        int window,
        bool packed,
        bool deterministic
    )
    {
        using var scope = NewDisposeScope();
        var type = Enum.Parse<ScalarType>(typeName);
        Tensor Random(int count) => randn([batch, length, count, dim], float32, Gpu.Device).to(type);
        var (q, k, v, dy) = (Random(heads), Random(groups), Random(groups), Random(heads));
        int[] starts = [0, 5, 6, length - 20, length, .. Enumerable.Range(1, batch - 1).Select(b => (b + 1) * length)];
        AttentionMask mask = new(
            window > 0 ? window : null,
            packed ? tensor(starts, device: Gpu.Device) : null,
            packed ? starts.Zip(starts.Skip(1), (a, b) => b - a).Max() : length
        );
        var attended = FusedAttention.Forward(q, k, v, mask);
        var (dq, dk, dv) = FusedAttention.Backward(dy, q, k, v, attended, mask, deterministic);

        var at = arange(length, device: Gpu.Device);
        var dense = at.unsqueeze(0).le(at.unsqueeze(1)).expand(batch, 1, length, length);
        if (window > 0)
            dense = dense.logical_and(at.unsqueeze(0).gt(at.unsqueeze(1) - window));
        if (packed)
        {
            var number = searchsorted(
                    tensor(starts, device: Gpu.Device),
                    arange(batch * length, int32, Gpu.Device),
                    right: true
                )
                .view(batch, length);
            dense = dense.logical_and(number.unsqueeze(2).eq(number.unsqueeze(1)).unsqueeze(1));
        }
        var leaves = new[] { q, k, v }.Select(x => x.to(float32).requires_grad_(true)).ToArray();
        Tensor y;
        using (enable_grad())
            y = FusedAttention
                .General(leaves[0].transpose(1, 2), leaves[1].transpose(1, 2), leaves[2].transpose(1, 2), dense, false)
                .transpose(1, 2);
        var gradients = autograd.grad([y], leaves, [dy.to(float32)]);
        var limit = type == ScalarType.BFloat16 ? 1e-2 : 2e-3;
        Near(y.detach(), attended.Output, limit);
        Near(gradients[0], dq, limit);
        Near(gradients[1], dk, limit);
        Near(gradients[2], dv, limit);
        if (!deterministic)
            return;
        for (var i = 0; i < 3; i++)
        {
            var again = FusedAttention.Backward(
                dy,
                q,
                k,
                v,
                FusedAttention.Forward(q, k, v, mask),
                mask,
                deterministic: true
            );
            Assert.True(dq.Equals(again.Q) && dk.Equals(again.K) && dv.Equals(again.V));
        }
    }

    /// <summary>Each rank in turn, over the keys of all.</summary>
    [GpuTheory, InlineData(2, 1024, 0, false), InlineData(3, 1000, 100, false), InlineData(2, 1001, 0, true)]
    public void Context_parallel_ranks_attend_as_one(int ranks, int length, int window, bool packed)
    {
        using var scope = NewDisposeScope();
        const int batch = 2,
            heads = 8,
            groups = 2,
            dim = 64;
        int? seen = window > 0 ? window : null;
        var documents = packed ? new Documents([0, 130, 131, 700, length, length + 9, 2 * length], length - 9) : null;
        var slice = new ContextSlice(0, ranks, batch, length);
        Tensor Random(int count) => randn([batch, length, count, dim], float32, Gpu.Device).to(bfloat16);
        var (q, k, v, dy) = (Random(heads), Random(groups), Random(groups), Random(heads));
        var mask = new AttentionMask(
            seen,
            documents is null ? null : tensor(documents.CuSeqlens, device: Gpu.Device),
            documents?.MaxSeqlen ?? length
        );
        var whole = FusedAttention.Forward(q, k, v, mask);
        var (dq, dk, dv) = FusedAttention.Backward(dy, q, k, v, whole, mask, deterministic: true);

        Tensor Of(Tensor x, int rank) =>
            nn
                .functional.pad(x, [0, 0, 0, 0, 0, slice.PaddedLength - length])
                .index_select(1, tensor((slice with { Rank = rank }).Places, device: Gpu.Device));
        var all = stack([.. Enumerable.Range(0, ranks).Select(r => stack([Of(k, r), Of(v, r)]))])
            .view(ranks, 2, -1, groups, dim);
        var sums = zeros_like(all, float32);
        var group = new OneRank(ranks, all, sums);
        for (var rank = 0; rank < ranks; rank++)
        {
            using var pass = new ContextPass(new(group), slice with { Rank = rank }, documents, Gpu.Device);
            var (keys, values) = pass.AllGather(Of(k, rank), Of(v, rank), fused: true);
            var (own, shared) = (Of(q, rank), pass.AttentionMaskFor(seen));
            var y = FusedAttention.Forward(own, keys, values, shared);
            var back = FusedAttention.Backward(Of(dy, rank), own, keys, values, y, shared, deterministic: true);
            pass.ReduceScatter(back.K, back.V, fused: true);
            Near(Of(whole.Output, rank), y.Output * Of(ones_like(q), rank), 1e-2);
            Near(Of(dq, rank), back.Q, 1e-2);
        }
        for (var rank = 0; rank < ranks; rank++)
        {
            var gradients = sums[rank].view(2, batch, slice.Length, groups, dim);
            Near(Of(dk, rank), gradients[0], 1e-2);
            Near(Of(dv, rank), gradients[1], 1e-2);
        }
    }

    /// <summary>A rank whose group has given its keys already, and adds up gradients.</summary>
    private sealed class OneRank(int size, Tensor all, Tensor sums) : IProcessGroup
    {
        public int Rank => 0;

        public int Size => size;

        public void AllGather(Tensor input, Tensor output) => output.copy_(all);

        public void ReduceScatter(Tensor input, Tensor output, ReduceOp op = ReduceOp.Sum) => sums.add_(input);

        public void AllReduce(Tensor tensor, ReduceOp op = ReduceOp.Sum) => throw new NotSupportedException();

        public void Broadcast(Tensor tensor, int source) => throw new NotSupportedException();

        public void Exchange(IReadOnlyList<PeerTensor> sends, IReadOnlyList<PeerTensor> receives) =>
            throw new NotSupportedException();

        public long[] AllGather(ReadOnlySpan<long> values, TimeSpan? limit = null) => throw new NotSupportedException();

        public IProcessGroup Split(int color, int key) => throw new NotSupportedException();

        public void Dispose() { }
    }

    private static void Near(Tensor expected, Tensor actual, double limit)
    {
        var error = ((expected - actual.to(float32)).norm() / expected.norm()).cpu().item<float>();
        Assert.True(error <= limit, $"relative error {error:E2} > {limit:E0}");
    }
}
