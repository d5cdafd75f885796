using Memopt.Trainer.Config;
using Memopt.Trainer.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Gpu;

/// <summary>Every kernel against its reference in fp32 on the same inputs: shapes that divide unevenly, every type, NaN
/// and infinity.</summary>
[Trait(Gpu.Trait, Gpu.Name)]
[Collection(ExclusiveCollection.Name)]
public sealed class KernelTests
{
    public static TheoryData<string, int, int> Rows()
    {
        var data = new TheoryData<string, int, int>();
        foreach (var type in new[] { "Float32", "BFloat16", "Float16" })
        {
            foreach (var (rows, width) in new[] { (1, 8), (3, 7), (17, 64), (9, 128), (5, 896), (4, 3584), (2, 5001) })
                data.Add(type, rows, width);
        }
        return data;
    }

    [GpuTheory, MemberData(nameof(Rows))]
    public void Rms_norm_equals_its_reference(string typeName, int rows, int width)
    {
        using var scope = NewDisposeScope();
        var type = Enum.Parse<ScalarType>(typeName);
        var (x, delta, weight, dy, accumulateInto) = (
            Random(type, rows, width),
            Random(type, rows, width),
            Random(type, width),
            Random(type, rows, width),
            Random(type, rows, width)
        );
        var sum = x + delta;
        var (y, rstd) = FusedRmsNorm.Forward(x, delta, weight, 1e-6);
        Same(sum, delta);
        var (expected, _) = FusedRmsNorm.Reference(Wide(sum), Wide(weight), 1e-6);
        Near(expected, y);
        Near(FusedRmsNorm.Reference(Wide(x), Wide(weight), 1e-6).Y, FusedRmsNorm.Forward(x, null, weight, 1e-6).Y);

        var rstd32 = FusedRmsNorm.Reference(Wide(sum), Wide(weight), 1e-6).Rstd;
        var back = FusedRmsNorm.ReferenceBackward(Wide(dy), Wide(sum), Wide(weight), rstd32, null);
        Near(back, FusedRmsNorm.Backward(dy, sum, weight, rstd, null));
        var added = back + Wide(accumulateInto);
        Near(added, FusedRmsNorm.Backward(dy, sum, weight, rstd, accumulateInto));
        Near(added, accumulateInto);
        Near(
            (Wide(dy) * (Wide(sum) * rstd32)).sum(dim: 0),
            FusedRmsNorm.WeightGradient(dy, sum, rstd),
            type == ScalarType.Float32 ? 1e-5 : 6e-3
        );
    }

    [GpuTheory, MemberData(nameof(Rows))]
    public void Gated_activations_equal_their_reference(string typeName, int rows, int width)
    {
        using var scope = NewDisposeScope();
        var type = Enum.Parse<ScalarType>(typeName);
        foreach (var act in GatedActivation.Activations)
        {
            foreach (var fused in new[] { false, true })
            {
                // Fused: both halves of one tensor, rows twice as far apart.
                var both = Random(type, 1, rows, 2 * width);
                var (gate, up) = fused
                    ? (both.narrow(-1, 0, width), both.narrow(-1, width, width))
                    : (Random(type, 1, rows, width), Random(type, 1, rows, width));
                var gradient = Random(type, 1, rows, width);
                var (g, u, d) = (Wide(gate), Wide(up), Wide(gradient));
                var expected = GatedActivation.Reference(g, u, act);
                Near(expected, GatedActivation.Forward(gate, up, act));
                GatedActivation.ReferenceBackward(g, u, d, act);
                GatedActivation.Backward(gate, up, gradient, act);
                Near(g, gate);
                Near(u, up);
                Near(expected, gradient);
            }
        }
    }

    [GpuTheory]
    [
        InlineData("BFloat16", 1, 32, 16, false),
        InlineData("BFloat16", 129, 4864, 16, true),
        InlineData("Float16", 77, 288, 32, false),
        InlineData("BFloat16", 300, 96, 64, true),
        InlineData("Float16", 16, 256, 64, false)
    ]
    public void Gated_activations_with_low_rank_parts_equal_their_reference(
        string typeName,
        int rows,
        int width,
        int rank,
        bool fused
    )
    {
        using var scope = NewDisposeScope();
        var type = Enum.Parse<ScalarType>(typeName);
        var lefts = Random(type, rows, 2 * rank);
        LowRank Part(double scale, Tensor left, params long[] right) => new(left, Random(type, right), scale);
        var (lowGate, lowUp, low) = (
            Part(0.5, lefts.narrow(1, 0, rank), width, rank),
            Part(2, lefts.narrow(1, rank, rank), width, rank),
            Part(-0.25, Random(type, rows, rank), rank, width)
        );
        foreach (var act in GatedActivation.Activations)
        {
            var both = Random(type, rows, 2 * width);
            var (gate, up) = fused
                ? (both.narrow(-1, 0, width), both.narrow(-1, width, width))
                : (Random(type, rows, width), Random(type, rows, width));
            var gradient = Random(type, rows, width);
            Assert.True(GatedActivation.CanFuseLowRank(gate, width, rank));
            Tensor Added(Tensor x, LowRank part, bool turned) =>
                (Wide(x) + (Wide(part.Left).matmul(turned ? Wide(part.Right) : Wide(part.Right).t()) * part.Scale)).to(
                    type
                );
            var (g, u) = (Wide(Added(gate, lowGate, false)), Wide(Added(up, lowUp, false)));
            var expected = GatedActivation.Reference(g, u, act);
            Near(expected, GatedActivation.Forward(gate, up, lowGate, lowUp, act));
            foreach (var withGradient in new[] { false, true })
            {
                var (gate2, up2, gradient2) = (gate.clone(), up.clone(), gradient.clone());
                if (fused)
                {
                    var again = both.clone();
                    (gate2, up2) = (again.narrow(-1, 0, width), again.narrow(-1, width, width));
                }
                var (dg, du, d) = (
                    g.clone(),
                    u.clone(),
                    withGradient ? Wide(Added(gradient, low, true)) : Wide(gradient)
                );
                GatedActivation.ReferenceBackward(dg, du, d, act);
                GatedActivation.Backward(gate2, up2, gradient2, lowGate, lowUp, withGradient ? low : null, act);
                Near(dg, gate2);
                Near(du, up2);
                Near(expected, gradient2);
            }
        }
    }

    [GpuTheory]
    [
        InlineData("Float32", 14, 2, 64, 64),
        InlineData("BFloat16", 28, 4, 128, 128),
        InlineData("Float16", 4, 4, 80, 80),
        InlineData("BFloat16", 6, 2, 20, 20),
        InlineData("Float32", 4, 1, 96, 48),
        InlineData("BFloat16", 3, 3, 24, 6)
    ]
    public void Rope_rotates_and_rotates_back(string typeName, int heads, int groups, int dim, int rotary)
    {
        using var scope = NewDisposeScope();
        var type = Enum.Parse<ScalarType>(typeName);
        foreach (var (batch, tables, fused) in new[] { (1, 1, false), (3, 1, true), (2, 2, false) })
        {
            const int T = 13;
            var whole = Random(type, batch, T, (heads + 2 * groups) * dim);
            var (q, k) = fused
                ? (
                    whole.narrow(-1, 0, heads * dim).view(batch, T, heads, dim),
                    whole.narrow(-1, heads * dim, groups * dim).view(batch, T, groups, dim)
                )
                : (Random(type, batch, T, heads, dim), Random(type, batch, T, groups, dim));
            var angles = Random(ScalarType.Float32, tables, T, rotary / 2);
            var (cos, sin) = (
                cat([angles.cos(), angles.cos()], -1).to(type),
                cat([angles.sin(), angles.sin()], -1).to(type)
            );
            foreach (var back in new[] { false, true })
            {
                var (wideQ, wideK) = (Wide(q), Wide(k));
                FusedRope.Reference(wideQ, Wide(cos), Wide(sin), back);
                FusedRope.Reference(wideK, Wide(cos), Wide(sin), back);
                FusedRope.Apply(q, k, cos, sin, back);
                Near(wideQ, q);
                Near(wideK, k);
            }
        }
    }

    [GpuTheory]
    [
        InlineData("Float32", 5, 4096, 0),
        InlineData("BFloat16", 33, 151936, 0),
        InlineData("Float16", 7, 32003, 0),
        InlineData("BFloat16", 3, 1001, 30),
        InlineData("Float32", 4, 517, 5)
    ]
    public void Cross_entropy_and_its_gradient_equal_their_reference(string typeName, int rows, int width, double cap)
    {
        using var scope = NewDisposeScope();
        var type = Enum.Parse<ScalarType>(typeName);
        var logits = Random(type, rows, width).mul_(4);
        var targets = randint(0, width, [rows], int64, Gpu.Device);
        targets[0] = tensor(width - 1L, device: Gpu.Device);
        logits[1].fill_(2); // all the same: the first is the likeliest
        targets[1] = tensor(0L, device: Gpu.Device);
        var wide = Wide(logits);
        var (expected, right) = CrossEntropy.Reference(wide, targets, 0.125, cap, gradient: true);
        var before = logits.clone();
        var (evaluated, _) = CrossEntropy.ForwardBackward(logits, targets, 0.125, cap, gradient: false);
        Same(before, logits);
        var (losses, hits) = CrossEntropy.ForwardBackward(logits, targets, 0.125, cap, gradient: true);
        Near(expected, losses, 1e-5);
        Same(losses, evaluated);
        Near(wide, logits);
        Same(right.to(ScalarType.Float32), hits.to(ScalarType.Float32));
    }

    [GpuFact]
    public void Cross_entropy_of_a_row_with_NaN_affects_its_own_loss_alone()
    {
        using var scope = NewDisposeScope();
        var logits = Random(ScalarType.BFloat16, 3, 1000);
        logits[1, 7] = tensor(float.NaN, ScalarType.BFloat16, Gpu.Device);
        var (losses, _) = CrossEntropy.ForwardBackward(logits, zeros([3], int64, Gpu.Device), 1, 0, gradient: true);
        var finite = losses.isfinite().cpu().data<bool>().ToArray();
        Assert.Equal([true, false, true], finite);
        Assert.True(logits[0].isfinite().all().cpu().item<bool>() && !logits[1].isfinite().all().cpu().item<bool>());
    }

    [GpuTheory, InlineData(1), InlineData(1023), InlineData(4_000_003)]
    public void Adam_and_the_gradient_norm_equal_their_reference(int count)
    {
        using var scope = NewDisposeScope();
        // A lone drawn value, or the sum of two, may lie near zero, where no relative error holds: a lone value is
        // positive.
        Tensor Draw(double scale) =>
            count == 1
                ? full([1], scale, ScalarType.Float32, Gpu.Device)
                : Random(ScalarType.Float32, count).mul_(scale);
        Tensor[] ours = [Draw(1), Draw(3), Draw(0.1), Draw(1).square()];
        var theirs = Array.ConvertAll(ours, t => t.clone());
        var copy = empty([count], ScalarType.BFloat16, Gpu.Device);
        var scratch = AdamW.Scratch(Gpu.Device);
        foreach (
            var step in new AdamWStep[]
            {
                new(1, 1e-2, 0.1, 0.9, 0.999, 1e-8, 1, 0.5),
                new(2, 1e-2, 0, 0.9, 0.999, 1e-8, 0),
                new(3, 1e-3, 0.01, 0.8, 0.95, 1e-6, 1e6),
            }
        )
        {
            var norm = AdamW.Norm(ours[1], step.Unscale, scratch);
            Near(AdamW.ReferenceNorm(theirs[1], step.Unscale), norm);
            AdamW.Step(ours[0], ours[1], ours[2], ours[3], copy, norm, step);
            AdamW.Reference(theirs[0], theirs[1], theirs[2], theirs[3], null, norm, step);
            for (var i = 0; i < 4; i++)
                Near(theirs[i], ours[i]);
            Same(ours[0].to(ScalarType.BFloat16), copy);
            Assert.Equal(0, ours[1].abs().sum().cpu().item<float>());
            ours[1].copy_(Draw(0.7));
            theirs[1].copy_(ours[1]);
        }
        ours[1][count / 2] = tensor(float.PositiveInfinity, device: Gpu.Device);
        var kept = ours[0].clone();
        AdamW.Step(
            ours[0],
            ours[1],
            ours[2],
            ours[3],
            copy,
            AdamW.Norm(ours[1], 1, scratch),
            new(4, 1, 1, 0.9, 0.999, 1e-8, 1)
        );
        Same(kept, ours[0]);
        Assert.Equal(0, ours[1].abs().sum().cpu().item<float>());
    }

    [GpuTheory]
    [
        InlineData(QuantType.Nf4, true, 64, 96),
        InlineData(QuantType.Nf4, false, 7, 13),
        InlineData(QuantType.Fp4, true, 129, 257),
        InlineData(QuantType.Fp4, false, 3, 5),
        InlineData(QuantType.Nf4, true, 1024, 1000)
    ]
    public void Four_bit_quantization_equals_the_hosts_to_the_bit(QuantType quant, bool doubled, int rows, int columns)
    {
        using var scope = NewDisposeScope();
        foreach (var type in new[] { ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16 })
        {
            var weight = Random(type, rows, columns).mul_(0.05);
            if (rows * columns > 200)
                weight.view(-1).narrow(0, 64, 64).zero_(); // a block of zeros
            using var ours = Nf4.Quantize(weight, quant, doubled);
            using var host = Nf4.Quantize(weight.cpu(), quant, doubled);
            Same(host.Codes, ours.Codes.cpu());
            if (!doubled)
                Same(host.Scales, ours.Scales.cpu());
            foreach (var to in new[] { ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16 })
                Same(ours.Reference(to), ours.Dequantize(to));
        }
    }

    [GpuTheory, InlineData("Float32"), InlineData("BFloat16"), InlineData("Float16")]
    public void Dropout_draws_the_mask_of_the_host(string typeName)
    {
        using var scope = NewDisposeScope();
        var type = Enum.Parse<ScalarType>(typeName);
        Same(
            Dropout.Mask([7, 1001], type, CPU, 0.3, -12345),
            Dropout.Mask([7, 1001], type, Gpu.Device, 0.3, -12345).cpu()
        );
        var rows = tensor(new long[] { 5, 6, 900_000_000_000 });
        Same(
            Dropout.Mask([3, 1001], type, CPU, 0.3, 5, rows),
            Dropout.Mask([3, 1001], type, Gpu.Device, 0.3, 5, rows.to(Gpu.Device)).cpu()
        );
    }

    private static Tensor Random(ScalarType type, params long[] shape) =>
        randn(shape, ScalarType.Float32, Gpu.Device).to(type);

    private static Tensor Wide(Tensor x) => x.to(ScalarType.Float32, copy: true).contiguous();

    private static void Same(Tensor expected, Tensor actual) =>
        Assert.True(expected.Equals(actual), "not the same bits");

    /// <summary>Relative error of the whole, by what the type can hold.</summary>
    private static void Near(Tensor expected, Tensor actual, double? limit = null)
    {
        using var scope = NewDisposeScope();
        limit ??= actual.dtype switch
        {
            ScalarType.BFloat16 => 8e-3,
            ScalarType.Float16 => 1e-3,
            _ => 3e-6,
        };
        var (e, a) = (expected.to(ScalarType.Float64), actual.to(ScalarType.Float64).view(expected.shape));
        var error = ((e - a).norm() / e.norm().clamp_min(1e-12)).cpu().item<double>();
        Assert.True(error <= limit, $"relative error {error:E2} > {limit:E0}");
    }
}
