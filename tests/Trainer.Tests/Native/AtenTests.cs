using System.Runtime.InteropServices;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Native;

[Collection(ExclusiveCollection.Name)]
public sealed class AtenTests
{
    [Fact]
    public void Operator_by_name_equals_TorchSharps_call_in_value_and_gradient()
    {
        using var scope = NewDisposeScope();
        var ours = linspace(-3, 3, 24, float32).reshape(4, 6).requires_grad_(true);
        var theirs = ours.detach().clone().requires_grad_(true);

        var byName = Aten.Call("aten::silu", "", [ours], 1)[0];
        var byCall = nn.functional.silu(theirs);
        byName.mul(byName).sum().backward();
        byCall.mul(byCall).sum().backward();

        Assert.Equal(byCall.data<float>().ToArray(), byName.data<float>().ToArray());
        Assert.Equal(theirs.grad!.data<float>().ToArray(), ours.grad!.data<float>().ToArray());
        Assert.NotEqual(0, ours.grad!.abs().sum().item<float>());
    }

    [Fact]
    public void Operator_can_be_called_without_recording()
    {
        using var scope = NewDisposeScope();
        var x = ones(3).requires_grad_(true);
        using (no_grad())
            Assert.False(Aten.Call("aten::silu", "", [x], 1)[0].requires_grad);
        Assert.True(Aten.Call("aten::silu", "", [x], 1)[0].requires_grad);
    }

    [Theory]
    [InlineData(false, null)]
    [InlineData(true, null)]
    [InlineData(true, 0.5)]
    public void Attention_with_shared_keys_equals_the_definition(bool isCausal, double? scale)
    {
        using var scope = NewDisposeScope();
        random.manual_seed(3);
        var (q, k, v) = (
            randn(2, 4, 5, 8).requires_grad_(true),
            randn(2, 2, 5, 8).requires_grad_(true),
            randn(2, 2, 5, 8).requires_grad_(true)
        );
        var weight = randn(2, 4, 5, 8);

        var ours = Aten.ScaledDotProductAttention(q, k, v, isCausal: isCausal, scale: scale, enableGqa: true);
        var oursGradients = autograd.grad([ours.mul(weight).sum()], [q, k, v]);

        var scores = q.matmul(k.repeat_interleave(2, 1).transpose(-1, -2)).mul(scale ?? 1 / Math.Sqrt(8));
        if (isCausal)
            scores = scores.masked_fill(ones(5, 5, @bool).triu(1), double.NegativeInfinity);
        var expected = scores.softmax(-1).matmul(v.repeat_interleave(2, 1));
        var expectedGradients = autograd.grad([expected.mul(weight).sum()], [q, k, v]);

        Close(expected, ours);
        for (var i = 0; i < 3; i++)
            Close(expectedGradients[i], oursGradients[i]);
    }

    [Fact]
    public void Attention_takes_a_mask()
    {
        using var scope = NewDisposeScope();
        random.manual_seed(4);
        var (q, k, v) = (randn(1, 2, 3, 8), randn(1, 2, 3, 8), randn(1, 2, 3, 8));
        var lower = ones(3, 3, @bool).tril();
        var masked = Aten.ScaledDotProductAttention(q, k, v, mask: lower);
        Close(Aten.ScaledDotProductAttention(q, k, v, isCausal: true), masked);
        Assert.False(masked.allclose(Aten.ScaledDotProductAttention(q, k, v)));
    }

    [Fact]
    public void Operator_with_several_results_and_integers_returns_them()
    {
        using var scope = NewDisposeScope();
        var found = Aten.Call("aten::topk", "", [tensor(new float[] { 4, 9, 1, 7 }), 2, -1, true, true], 2);
        Assert.Equal([9f, 7f], found[0].data<float>().ToArray());
        Assert.Equal([1L, 3L], found[1].data<long>().ToArray());
    }

    [Fact]
    public void Operator_with_lists_of_tensors_runs_the_fused_optimizer()
    {
        using var scope = NewDisposeScope();
        Tensor[] weights = [tensor(new float[] { 1, -2 }), tensor(new float[] { 3 })];
        Tensor[] gradients = [tensor(new float[] { 0.5f, -0.25f }), tensor(new float[] { 2 })];
        Tensor[] first = [zeros(2), zeros(1)],
            second = [zeros(2), zeros(1)],
            steps = [tensor(1f), tensor(1f)];

        Aten.Call(
            "aten::_fused_adamw_",
            "",
            [
                AtenArg.List(weights),
                AtenArg.List(gradients),
                AtenArg.List(first),
                AtenArg.List(second),
                AtenArg.List([]),
                AtenArg.List(steps),
                0.1,
                0.9,
                0.999,
                0.01,
                1e-8,
                false,
                false,
                AtenArg.None,
                AtenArg.None,
            ],
            0
        );

        // At step 1 the corrected moments are g and g², so the step is lr · sign(g), after a decay of 1 − lr · 0.01.
        Assert.Equal(1 * 0.999 - 0.1, weights[0][0].item<float>(), 5);
        Assert.Equal(-2 * 0.999 + 0.1, weights[0][1].item<float>(), 5);
        Assert.Equal(3 * 0.999 - 0.1, weights[1][0].item<float>(), 5);
        Assert.Equal(0.05f, first[0][0].item<float>(), 6);
    }

    [Fact]
    public void Fault_of_an_operator_names_it_and_its_arguments()
    {
        using var scope = NewDisposeScope();
        var unknown = Assert.Throws<ExternalException>(() => Aten.Call("aten::no_such_operator", "", [ones(2)], 1));
        Assert.Contains("aten::no_such_operator", unknown.Message);
        var shapes = Assert.Throws<ExternalException>(() => Aten.Call("aten::mm", "", [ones(2, 3), ones(4, 5)], 1));
        Assert.Contains("aten::mm", shapes.Message);
        Assert.Contains("[2,3]", shapes.Message);
    }

    [Fact]
    public void Operator_called_ten_thousand_times_keeps_no_memory()
    {
        using var outer = NewDisposeScope();
        var (q, k, v) = (randn(1, 8, 64, 64), randn(1, 8, 64, 64), randn(1, 8, 64, 64));
        void Calls(int count)
        {
            for (var i = 0; i < count; i++)
            {
                using var scope = NewDisposeScope();
                Aten.Call("aten::silu", "", [q], 1);
                if (i % 10 == 0)
                    Aten.ScaledDotProductAttention(q, k, v, mask: k.select(-1, 0).unsqueeze(-2), scale: 0.5);
            }
        }
        Calls(500);
        var before = HostMemory.ResidentBytes();
        Calls(10_000);
        // One kept result a call would be 10,000 × 128 KiB = 1250 MiB; garbage of .NET may wait for its collection.
        Assert.InRange(HostMemory.ResidentBytes() - before, long.MinValue, 400L << 20);
    }

    [Fact]
    public void Operator_releases_its_arguments_after_the_call()
    {
        using var scope = NewDisposeScope();
        // Tensors of 64 MiB: handles that the calls did not consume would hold 16 rounds of them, 3 GiB.
        void Round()
        {
            using var inner = NewDisposeScope();
            var large = ones(1 << 24);
            Aten.Call("aten::silu_", "", [large], 1);
            Aten.Call("aten::_foreach_mul_", "List", [AtenArg.List([large]), AtenArg.List([ones(1 << 24)])], 0);
            Aten.ScaledDotProductAttention(
                large[..64].reshape(1, 1, 8, 8),
                large[..64].reshape(1, 1, 8, 8),
                large[..64].reshape(1, 1, 8, 8),
                mask: ones(1 << 24)[..64].reshape(8, 8)
            );
        }
        Round();
        var before = HostMemory.ResidentBytes();
        for (var round = 0; round < 16; round++)
            Round();
        Assert.InRange(HostMemory.ResidentBytes() - before, long.MinValue, 400L << 20);
    }

    private static void Close(Tensor expected, Tensor got) =>
        Assert.True(
            got.allclose(expected, rtol: 1e-4, atol: 1e-5),
            $"largest difference {(got - expected).abs().max().item<float>()}"
        );
}
