using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Distributed;
using static TorchSharp.torch;

namespace Memopt.Trainer.Kernels;

/// <summary>4-bit block quantization in bitsandbytes' layout: blocks of 64 values, two codes a byte with the even
/// element in the high nibble, block scales in fp32 or again quantized to 8 bits in blocks of 256 (QLoRA, Dettmers et
/// al. 2023, arXiv 2305.14314).
/// </summary>
internal sealed class Nf4 : IDisposable
{
    public const int Block = 64;
    public const int NestedBlock = 256;

    /// <summary>The 16 values of NF4.</summary>
    public static readonly float[] Nf4Codes =
    [
        -1.0f,
        -0.6961928009986877f,
        -0.5250730514526367f,
        -0.39491748809814453f,
        -0.28444138169288635f,
        -0.18477343022823334f,
        -0.09105003625154495f,
        0.0f,
        0.07958029955625534f,
        0.16093020141124725f,
        0.24611230194568634f,
        0.33791524171829224f,
        0.44070982933044434f,
        0.5626170039176941f,
        0.7229568362236023f,
        1.0f,
    ];

    /// <summary>The 16 values of FP4, by nibble.</summary>
    public static readonly float[] Fp4Codes = Array.ConvertAll(
        [0f, 0.0625f, 8f, 12f, 4f, 6f, 2f, 3f, -0f, -0.0625f, -8f, -12f, -4f, -6f, -2f, -3f],
        value => value / 12
    );

    // A value's code is the number of thresholds it is strictly greater than.
    private static readonly float[] Nf4Thresholds =
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

    // FP4 by magnitude: boundaries between 0, .0052, .1667, .25, .3333, .5, .6667, 1 and the nibble of each interval.
    private static readonly float[] Fp4Thresholds =
    [
        0.00260417f,
        0.0859375f,
        0.20833333f,
        0.29166667f,
        0.4166667f,
        0.583333f,
        0.8333333f,
    ];
    private static readonly long[] Fp4Nibbles = [0, 1, 6, 7, 4, 5, 2, 3];

    private static readonly Kernel kernel = new("Nf4.cu");
    private static readonly Dictionary<(QuantType, string), Tables> tables = [];

    private readonly Tensor?[] parts = new Tensor?[4];
    private readonly Tables table;

    private Nf4(QuantType type, long[] shape, Tensor codes, Tensor scales, Tensor? nestedScales, Tensor? nestedOffset)
    {
        (Type, Shape) = (type, shape);
        (parts[0], parts[1], parts[2], parts[3], table) = (
            codes,
            scales,
            nestedScales,
            nestedOffset,
            TablesOn(codes.device, type)
        );
    }

    /// <summary>What every weight of a type needs on a device, there once.</summary>
    /// <param name="Values">The 16 values by code.</param>
    /// <param name="Pairs">Both values of a byte, (256, 2).</param>
    /// <param name="Thresholds">Between neighbouring values (magnitudes for FP4).</param>
    /// <param name="Nibbles">FP4's nibble of each magnitude.</param>
    /// <param name="Map">The 8-bit map of block scales.</param>
    private sealed record Tables(Tensor Values, Tensor Pairs, Tensor Thresholds, Tensor Nibbles, Tensor Map);

    public QuantType Type { get; }

    /// <summary>Shape of the weight.</summary>
    public long[] Shape { get; }

    /// <summary>Packed codes, uint8 (ceil(N / 2), 1).</summary>
    public Tensor Codes => parts[0]!;

    /// <summary>Block scales: fp32, or uint8 under double quantization.</summary>
    public Tensor Scales => parts[1]!;

    /// <summary>fp32 scale of each 256 block scales; null without double quantization.</summary>
    public Tensor? NestedScales => parts[2];

    /// <summary>Mean taken off the block scales before they were quantized.</summary>
    public float NestedOffset => parts[3]?.cpu().item<float>() ?? 0;

    /// <summary>Its tensors, each with a way to put an equal one in its place.</summary>
    public IEnumerable<TensorSlot> Slots =>
        Enumerable
            .Range(0, parts.Length)
            .Where(i => parts[i] is not null)
            .Select(i => new TensorSlot(
                () => parts[i]!,
                moved =>
                {
                    parts[i]!.Dispose();
                    parts[i] = moved.DetachFromDisposeScope();
                }
            ));

    /// <summary>Bytes of the codes and scales; the two code tables are shared by all weights in the format and not
    /// counted.</summary>
    public long Bytes =>
        Codes.numel()
        + Scales.numel() * Scales.element_size()
        + (NestedScales is null ? 0 : NestedScales.numel() * 4 + 4);

    /// <summary>Quantizes a weight of any float type where it lies.</summary>
    public static Nf4 Quantize(Tensor weight, QuantType type, bool doubleQuant)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var count = weight.numel();
        var blocks = (count + Block - 1) / Block;
        var (packed, absmax) = Kernel.Supports(weight)
            ? Launch(weight.contiguous(), type, blocks)
            : Reference(weight, type, blocks);
        if (!doubleQuant)
            return new(
                type,
                weight.shape,
                packed.DetachFromDisposeScope(),
                absmax.DetachFromDisposeScope(),
                null,
                null
            );

        var offset = absmax.to(float64).mean().to(float32); // the same on every device
        var centred = absmax - offset;
        var outer = (blocks + NestedBlock - 1) / NestedBlock;
        if (outer * NestedBlock > blocks)
            centred = cat([centred, zeros([outer * NestedBlock - blocks], float32, absmax.device)]);
        var rows = centred.reshape(outer, NestedBlock);
        var nested = rows.abs().amax([1]);
        var unit = rows * nested.reciprocal().unsqueeze(1);
        unit = where(unit.isnan(), zeros_like(unit), unit);
        var map = TablesOn(absmax.device, type).Map;
        var midpoints = (map.narrow(0, 0, 255) + map.narrow(0, 1, 255)) / 2;
        var q = searchsorted(midpoints, unit.contiguous()).to(uint8).reshape(-1).narrow(0, 0, blocks).clone();
        return new(
            type,
            weight.shape,
            packed.DetachFromDisposeScope(),
            q.DetachFromDisposeScope(),
            nested.DetachFromDisposeScope(),
            offset.DetachFromDisposeScope()
        );
    }

    private static (Tensor Codes, Tensor Scales) Launch(Tensor weight, QuantType type, long blocks)
    {
        var count = weight.numel();
        var packed = empty([(count + 1) / 2, 1], uint8, weight.device);
        var absmax = empty([blocks], float32, weight.device);
        var table = TablesOn(weight.device, type);
        kernel.Launch(
            "quantize",
            weight.dtype,
            ((blocks + 7) / 8, 1),
            (256, 1),
            [
                weight,
                packed,
                absmax,
                table.Thresholds,
                (int)table.Thresholds.shape[0],
                type == QuantType.Fp4 ? table.Nibbles : KernelArg.Null,
                count,
            ]
        );
        return (packed, absmax);
    }

    internal static (Tensor Codes, Tensor Scales) Reference(Tensor weight, QuantType type, long blocks)
    {
        using var scope = NewDisposeScope();
        var flat = weight.detach().to(float32).reshape(-1);
        var count = flat.shape[0];
        if (blocks * Block > count)
            flat = cat([flat, zeros([blocks * Block - count], float32, flat.device)]);
        var grid = flat.reshape(blocks, Block);
        var absmax = grid.abs().amax([1]); // (blocks)
        var scaled = grid * absmax.reciprocal().unsqueeze(1);
        var nibbles = type == QuantType.Nf4 ? Nf4Nibbles(scaled) : Fp4NibblesOf(scaled);
        nibbles = nibbles.reshape(-1).narrow(0, 0, count);
        if (count % 2 == 1)
            nibbles = cat([nibbles, zeros([1], nibbles.dtype, nibbles.device)]);
        var twos = nibbles.reshape(-1, 2);
        var packed = (twos.select(1, 0) * 16 + twos.select(1, 1)).to(uint8).reshape(-1, 1);
        return (packed.MoveToOuterDisposeScope(), absmax.MoveToOuterDisposeScope());
    }

    /// <summary>Signed dynamic 8-bit map of bitsandbytes: 256 sorted values, denser near 0.</summary>
    public static float[] DynamicMap { get; } = BuildDynamicMap();

    /// <summary>The weight again: code · scale in fp32, cast; a new tensor each call.</summary>
    public Tensor Dequantize(ScalarType type)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        if (!Kernel.Supports(Codes.device, type))
            return Reference(type).MoveToOuterDisposeScope();
        var y = empty(Shape, type, Codes.device);
        DequantizeTo(y);
        return y.MoveToOuterDisposeScope();
    }

    /// <summary>The same into a tensor that is there, by the kernel.</summary>
    internal void DequantizeTo(Tensor y)
    {
        var count = y.numel();
        kernel.Launch(
            "dequantize",
            y.dtype,
            ((count + 4095) / 4096, 1),
            (256, 1),
            [Codes, Scales, KernelArg.Maybe(NestedScales), table.Map, KernelArg.Maybe(parts[3]), table.Values, y, count]
        );
    }

    /// <summary>A tensor parallel rank's part, with block scales in fp32: nested blocks do not divide as the weight
    /// does. Frees the whole.</summary>
    /// <exception cref="UserFault">The part does not consist of whole blocks.</exception>
    public Nf4 Take(WeightSlice slice)
    {
        using var scope = NewDisposeScope();
        var (rows, columns) = (Shape[0], Shape[1]);
        if (columns % Block != 0 || (slice.Dim == 1 && slice.Ranges.Any(r => (r.Start | r.Length) % Block != 0)))
            throw new UserFault(
                "Weights in 4 bits do not divide among the ranks.",
                found: $"a weight of {rows} × {columns} in blocks of {Block}, of which a rank would have "
                    + $"{slice.Ranges.Sum(range => range.Length)} {(slice.Dim == 1 ? "columns" : "rows")}",
                next: "set adapter.kind to lora, or distributed.tensor to a number that divides the blocks"
            );
        Tensor Part(Tensor grid, int width) =>
            cat(
                    [
                        .. slice.Ranges.Select(r =>
                            slice.Dim == 0
                                ? grid.narrow(0, r.Start, r.Length)
                                : grid.narrow(1, r.Start / width, r.Length / width)
                        ),
                    ],
                    slice.Dim
                )
                .contiguous();
        var codes = Part(Codes.view(rows, columns / 2), 2);
        var scales = Part(BlockScales().view(rows, columns / Block), Block).view(-1);
        long[] shape = slice.Dim == 0 ? [codes.shape[0], columns] : [rows, codes.shape[1] * 2];
        var part = new Nf4(
            Type,
            shape,
            codes.view(-1, 1).DetachFromDisposeScope(),
            scales.DetachFromDisposeScope(),
            null,
            null
        );
        Dispose();
        return part;
    }

    /// <summary>Block scales in fp32.</summary>
    private Tensor BlockScales()
    {
        if (NestedScales is not { } nestedScales)
            return Scales;
        var real = table.Map.index_select(0, Scales.to(int32));
        var outer = nestedScales.repeat_interleave(NestedBlock).narrow(0, 0, Scales.shape[0]);
        return real.mul_(outer).add_(parts[3]!);
    }

    internal Tensor Reference(ScalarType type)
    {
        using var scope = NewDisposeScope();
        var absmax = BlockScales();
        var count = Shape.Aggregate(1L, (a, b) => a * b);
        // one look-up a byte: both codes at once
        var values = table.Pairs.index_select(0, Codes.reshape(-1).to(int32)).reshape(-1);
        var padded = absmax.shape[0] * Block;
        if (padded > values.shape[0])
            values = cat([values, zeros([padded - values.shape[0]], float32, values.device)]);
        values = values.reshape(-1, Block).mul_(absmax.unsqueeze(1)).reshape(-1);
        if (padded > count)
            values = values.narrow(0, 0, count);
        return values.reshape(Shape).to(type).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        foreach (var part in parts)
            part?.Dispose();
    }

    private static Tables TablesOn(Device device, QuantType type)
    {
        lock (tables)
        {
            if (tables.TryGetValue((type, device.ToString()), out var known))
                return known;
            Tensor Kept<E>(E[] values)
                where E : unmanaged =>
                tensor(Array.ConvertAll(values, v => Convert.ToSingle(v)), device: device).DetachFromDisposeScope();
            var values = type == QuantType.Nf4 ? Nf4Codes : Fp4Codes;
            var both = new float[512];
            for (var i = 0; i < 256; i++)
                (both[2 * i], both[2 * i + 1]) = (values[i >> 4], values[i & 15]);
            using var flat = Kept(both);
            using var nibbles = Kept(Fp4Nibbles);
            return tables[(type, device.ToString())] = new(
                Kept(values),
                flat.reshape(256, 2).DetachFromDisposeScope(),
                Kept(type == QuantType.Nf4 ? Nf4Thresholds : Fp4Thresholds),
                nibbles.to(uint8).DetachFromDisposeScope(),
                Kept(DynamicMap)
            );
        }
    }

    // 0 / 0 of an all-zero block is greater than nothing: code 0, as in the reference.
    private static Tensor Nf4Nibbles(Tensor scaled)
    {
        var found = searchsorted(tensor(Nf4Thresholds, device: scaled.device), scaled.contiguous());
        return where(scaled.isnan(), zeros_like(found), found);
    }

    private static Tensor Fp4NibblesOf(Tensor scaled)
    {
        var magnitude = searchsorted(tensor(Fp4Thresholds, device: scaled.device), scaled.abs().contiguous());
        magnitude = where(scaled.isnan(), zeros_like(magnitude), magnitude);
        var nibble = tensor(Fp4Nibbles, device: scaled.device)
            .index_select(0, magnitude.reshape(-1))
            .reshape(scaled.shape);
        return nibble + scaled.lt(0).to(int64) * 8;
    }

    private static float[] BuildDynamicMap()
    {
        var map = new List<float> { 0, 1 };
        for (var i = 0; i < 7; i++)
        {
            // fp32 throughout, as the reference computes it: linspace mirrors its second half from the end.
            var parts = 1 << i;
            var edges = new float[parts + 1];
            var step = (1f - 0.1f) / parts;
            for (var j = 0; j <= parts; j++)
                edges[j] = j < (parts + 1) / 2 ? 0.1f + step * j : 1f - step * (parts - j);
            for (var j = 0; j < parts; j++)
            {
                var mean = (edges[j] + edges[j + 1]) / 2 * (float)Math.Pow(10, i - 6);
                map.Add(mean);
                map.Add(-mean);
            }
        }
        map.Sort();
        return [.. map];
    }
}

/// <summary>A tensor that a memory pass may put elsewhere: the present one, and a way to put an equal one in its place,
/// which frees it.</summary>
internal readonly record struct TensorSlot(Func<Tensor> Get, Action<Tensor> Put);
