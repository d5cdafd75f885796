using Memopt.Trainer.Config;
using Memopt.Trainer.Kernels;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Kernels;

/// <summary>Against a second reading of bitsandbytes' layout, in plain C# over arrays.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class Nf4Tests
{
    public static TheoryData<QuantType, bool, int[], int> Cases =>
        new()
        {
            { QuantType.Nf4, true, [256, 768], 1 },
            { QuantType.Nf4, false, [256, 768], 2 },
            { QuantType.Fp4, true, [256, 96], 3 },
            { QuantType.Fp4, false, [64, 96], 4 },
            { QuantType.Nf4, true, [7, 13], 5 },
            { QuantType.Nf4, false, [3, 5], 6 },
            { QuantType.Nf4, true, [129, 257], 7 },
        };

    [Theory, MemberData(nameof(Cases))]
    public void Dequantized_weights_agree_to_the_bit_with_bitsandbytes_layout(
        QuantType type,
        bool doubleQuant,
        int[] shape,
        int seed
    )
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator((ulong)seed);
        var weight = randn([shape[0], shape[1]], float32, generator: generator).mul_(0.05);
        using var quantized = Nf4.Quantize(weight, type, doubleQuant);
        var values = weight.data<float>().ToArray();
        var (codes, scales) = (quantized.Codes.data<byte>().ToArray(), Scales(values, doubleQuant, quantized));
        var expected = new float[values.Length];
        for (var i = 0; i < values.Length; i++)
        {
            var nibble = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
            Assert.Equal(Code(type, values[i] * (1 / AbsMax(values, i / 64))), nibble);
            expected[i] = (type == QuantType.Nf4 ? Nf4.Nf4Codes : Fp4)[nibble] * scales[i / 64];
        }
        Assert.Equal(expected, quantized.Dequantize(float32).data<float>().ToArray());
        Assert.Equal((values.Length + 1) / 2, codes.Length);
    }

    [Fact]
    public void Double_quantization_takes_4_127_bits_a_weight()
    {
        using var scope = NewDisposeScope();
        using var quantized = Nf4.Quantize(randn([2048, 2048], float32), QuantType.Nf4, doubleQuant: true);
        // 4 + 8/64 + 32/(64·256) = 4.12695 bits, and four bytes of offset.
        Assert.Equal(4.127, (quantized.Bytes - 4) * 8.0 / (2048 * 2048), 3);
    }

    [Fact]
    public void Dynamic_map_has_the_reference_s_shape()
    {
        var map = Nf4.DynamicMap;
        Assert.Equal(256, map.Length);
        Assert.Equal(1f, map[^1]);
        Assert.Contains(0f, map);
        Assert.Equal(-0.9929688f, map[0], 6); // mean of the last two of linspace(0.1, 1, 65), negated
        Assert.Equal(map.Order(), map);
        Assert.Equal(256, map.Distinct().Count());
    }

    // FP4 by nibble: sign bit, then the magnitudes of formats in bitsandbytes' table over 12.
    private static readonly float[] Fp4 =
    [
        0,
        0.0625f / 12,
        8f / 12,
        1,
        4f / 12,
        6f / 12,
        2f / 12,
        3f / 12,
        -0f,
        -0.0625f / 12,
        -8f / 12,
        -1,
        -4f / 12,
        -6f / 12,
        -2f / 12,
        -3f / 12,
    ];

    private static float AbsMax(float[] values, int block)
    {
        var max = 0f;
        for (var i = block * 64; i < Math.Min(values.Length, block * 64 + 64); i++)
            max = Math.Max(max, Math.Abs(values[i]));
        return max;
    }

    private static int Code(QuantType type, float x)
    {
        if (type == QuantType.Nf4)
        {
            float[] thresholds =
            [
                -0.8480964004993439f,
                -0.6106329262256622f,
                -0.4599952697753906f,
                -0.33967943489551544f,
                -0.23460740596055984f,
                -0.13791173323988914f,
                -0.045525018125772476f,
                0.03979014977812767f,
                0.1202552504837513f,
                0.2035212516784668f,
                0.2920137718319893f,
                0.3893125355243683f,
                0.5016634166240692f,
                0.6427869200706482f,
                0.8614784181118011f,
            ];
            return thresholds.Count(threshold => x > threshold);
        }
        // The nearest magnitude; the table's own midpoints decide.
        var nibbles = Enumerable.Range(0, 8).OrderBy(n => Math.Abs(Fp4[n] - Math.Abs(x))).ToArray();
        return nibbles[0] + (x < 0 ? 8 : 0);
    }

    /// <summary>Block scales as stored: fp32, or nested_quant_map[q] · nested_absmax[block / 256] + offset.</summary>
    private static float[] Scales(float[] values, bool doubleQuant, Nf4 quantized)
    {
        var blocks = (values.Length + 63) / 64;
        if (!doubleQuant)
        {
            var stored = quantized.Scales.data<float>().ToArray();
            Assert.Equal(Enumerable.Range(0, blocks).Select(block => AbsMax(values, block)), stored);
            return stored;
        }
        var (q, outer) = (quantized.Scales.data<byte>().ToArray(), quantized.NestedScales!.data<float>().ToArray());
        Assert.Equal((blocks + 255) / 256, outer.Length);
        var scales = new float[blocks];
        for (var block = 0; block < blocks; block++)
        {
            scales[block] = Nf4.DynamicMap[q[block]] * outer[block / 256] + quantized.NestedOffset;
            // The stored scale is the nearest the map has: within half its widest gap of the true one.
            Assert.True(Math.Abs(scales[block] - AbsMax(values, block)) <= 0.012f * outer[block / 256] + 1e-7f);
        }
        return scales;
    }
}
