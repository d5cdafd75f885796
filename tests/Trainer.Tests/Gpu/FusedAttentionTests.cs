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

    private static void Near(Tensor expected, Tensor actual, double limit)
    {
        var error = ((expected - actual.to(float32)).norm() / expected.norm()).cpu().item<float>();
        Assert.True(error <= limit, $"relative error {error:E2} > {limit:E0}");
    }
}
