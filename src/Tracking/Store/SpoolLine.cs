using System.Buffers;
using System.Globalization;
using System.IO.Hashing;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>A line of a spool: a CRC of the rest, a kind, the step a run goes on from, and JSON. What a kill left
/// half-written fails the CRC and is passed over.</summary>
internal static class SpoolLine
{
    /// <summary>Appends a line with a body that is JSON already.</summary>
    public static void Write(ArrayBufferWriter<byte> target, string kind, int fromStep, ReadOnlySpan<byte> body)
    {
        var start = Open(target, kind, fromStep);
        target.Write(body);
        Close(target, start);
    }

    /// <summary>Appends a line of values at a step: t the time, s the step, v the values by name; what JSON has no
    /// number for is a string.</summary>
    public static void Write(
        ArrayBufferWriter<byte> target,
        string kind,
        int fromStep,
        ReadOnlySpan<(string Name, double Value)> values,
        long time,
        long step,
        Utf8JsonWriter json
    )
    {
        var start = Open(target, kind, fromStep);
        json.Reset(target);
        json.WriteStartObject();
        json.WriteNumber("t"u8, time);
        json.WriteNumber("s"u8, step);
        json.WriteStartObject("v"u8);
        foreach (var (name, value) in values)
        {
            if (double.IsFinite(value))
                json.WriteNumber(name, value);
            else
                json.WriteString(name, value.ToString(CultureInfo.InvariantCulture));
        }
        json.WriteEndObject();
        json.WriteEndObject();
        json.Flush();
        Close(target, start);
    }

    private static int Open(ArrayBufferWriter<byte> target, string kind, int fromStep)
    {
        var start = target.WrittenCount;
        target.Write("         "u8);
        Encoding.UTF8.GetBytes(kind, target);
        target.Write(" "u8);
        fromStep.TryFormat(target.GetSpan(16), out var digits, default, CultureInfo.InvariantCulture);
        target.Advance(digits);
        target.Write(" "u8);
        return start;
    }

    private static void Close(ArrayBufferWriter<byte> target, int start)
    {
        // The CRC goes before what it is of: into bytes that the buffer gave out already.
        var line = MemoryMarshal.AsMemory(target.WrittenMemory)[start..].Span;
        Crc32.HashToUInt32(line[9..]).TryFormat(line, out _, "x8", CultureInfo.InvariantCulture);
        target.Write("\n"u8);
    }

    /// <summary>Takes a line apart; false when it is torn.</summary>
    public static bool TryRead(
        ReadOnlySpan<byte> line,
        out ReadOnlySpan<byte> kind,
        out int fromStep,
        out ReadOnlySpan<byte> body
    )
    {
        kind = body = default;
        fromStep = 0;
        if (
            line.Length < 14
            || !System.Buffers.Text.Utf8Parser.TryParse(line[..8], out uint crc, out var used, 'x')
            || used != 8
        )
            return false;
        var rest = line[9..];
        if (Crc32.HashToUInt32(rest) != crc)
            return false;
        var first = rest.IndexOf((byte)' ');
        if (first < 0)
            return false;
        kind = rest[..first];
        rest = rest[(first + 1)..];
        var second = rest.IndexOf((byte)' ');
        if (second < 0)
            return false;
        body = rest[(second + 1)..];
        return System.Buffers.Text.Utf8Parser.TryParse(rest[..second], out fromStep, out _);
    }
}
