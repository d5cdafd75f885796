using System.Buffers.Binary;
using System.IO.Compression;

namespace Memopt.Tracking;

/// <summary>Up to <see cref="Size"/> points of a metric as bytes. Steps and times are differences as variable-length
/// numbers. Values are xor-ed with the one before and stored byte plane by byte plane, so that what neighbours share
/// becomes runs of zeros for the compressor; no bit of them is lost.
/// </summary>
internal static class Chunk
{
    public const int Size = 512;

    private const byte Raw = 0,
        Deflated = 1;

    public static byte[] Pack(ReadOnlySpan<Point> points)
    {
        var plain = new byte[3 * 10 * (points.Length + 1) + 8 * points.Length];
        var at = 0;
        Put(plain, ref at, (ulong)points.Length);
        var (step, time) = (0L, 0L);
        foreach (var point in points)
            (at, step) = (Difference(plain, at, step, point.Step), point.Step);
        foreach (var point in points)
            (at, time) = (Difference(plain, at, time, point.Time), point.Time);
        var before = 0L;
        for (var i = 0; i < points.Length; i++)
        {
            var bits = BitConverter.DoubleToInt64Bits(points[i].Value);
            var change = bits ^ before;
            before = bits;
            for (var plane = 0; plane < 8; plane++)
                plain[at + plane * points.Length + i] = (byte)(change >> (8 * plane));
        }
        at += 8 * points.Length;

        using var packed = new MemoryStream();
        packed.WriteByte(Deflated);
        using (var deflate = new DeflateStream(packed, CompressionLevel.Fastest, leaveOpen: true))
            deflate.Write(plain, 0, at);
        return packed.Length <= at ? packed.ToArray() : [Raw, .. plain.AsSpan(0, at)];
    }

    public static List<Point> Unpack(byte[] bytes)
    {
        ReadOnlySpan<byte> plain = bytes.AsSpan(1);
        if (bytes[0] == Deflated)
        {
            using var deflate = new DeflateStream(
                new MemoryStream(bytes, 1, bytes.Length - 1),
                CompressionMode.Decompress
            );
            using var all = new MemoryStream(16 * Size);
            deflate.CopyTo(all);
            plain = all.GetBuffer().AsSpan(0, (int)all.Length);
        }
        var count = (int)Take(ref plain);
        var points = new List<Point>(count);
        Span<long> steps = new long[count],
            times = new long[count];
        Accumulate(ref plain, steps);
        Accumulate(ref plain, times);
        if (plain.Length != 8 * count)
            throw new InvalidDataException("A chunk of points has the wrong length.");
        var bits = 0L;
        for (var i = 0; i < count; i++)
        {
            for (var plane = 0; plane < 8; plane++)
                bits ^= (long)plain[plane * count + i] << (8 * plane);
            points.Add(new(steps[i], BitConverter.Int64BitsToDouble(bits), times[i]));
        }
        return points;
    }

    private static int Difference(byte[] target, int at, long before, long now)
    {
        var change = unchecked(now - before);
        Put(target, ref at, (ulong)(change << 1) ^ (ulong)(change >> 63)); // small whatever the sign
        return at;
    }

    private static void Accumulate(ref ReadOnlySpan<byte> source, Span<long> values)
    {
        var sum = 0L;
        foreach (ref var value in values)
        {
            var zigzag = Take(ref source);
            value = sum = unchecked(sum + ((long)(zigzag >> 1) ^ -(long)(zigzag & 1)));
        }
    }

    private static void Put(byte[] target, ref int at, ulong value)
    {
        for (; value >= 0x80; value >>= 7)
            target[at++] = (byte)(value | 0x80);
        target[at++] = (byte)value;
    }

    private static ulong Take(ref ReadOnlySpan<byte> source)
    {
        var value = 0UL;
        for (var shift = 0; shift < 64; shift += 7)
        {
            var part = source[0];
            source = source[1..];
            value |= (ulong)(part & 0x7f) << shift;
            if (part < 0x80)
                return value;
        }
        throw new InvalidDataException("A chunk of points has a number that does not end.");
    }
}
