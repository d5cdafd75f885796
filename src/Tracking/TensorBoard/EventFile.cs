using System.Buffers;
using System.Buffers.Binary;
using System.Globalization;
using System.Numerics;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Memopt.Tracking;

/// <summary>One event file: TFRecords (length, its CRC, data, its CRC) of Event messages
/// (tensorflow/core/util/event.proto), of which four kinds of field are enough. The file is at every moment the
/// beginning of what was to be written; a kill tears at most the last record, where readers stop.
/// </summary>
internal sealed class EventFile : IDisposable
{
    private const int Waiting = 16 << 20;

    // Field numbers of event.proto and summary.proto, with the wire type in the low three bits.
    private const int WallTime = 1 << 3 | 1,
        Step = 2 << 3,
        FileVersion = 3 << 3 | 2,
        Summary = 5 << 3 | 2,
        SessionLog = 7 << 3 | 2;
    private const int SummaryValue = 1 << 3 | 2,
        ValueTag = 1 << 3 | 2,
        SimpleValue = 2 << 3 | 5,
        SessionStatus = 1 << 3,
        SessionStart = 1;

    private readonly Lock gate = new();
    private readonly string folder;
    private readonly Action<string> report;
    private readonly TimeProvider clock;
    private readonly ArrayBufferWriter<byte> records = new(),
        message = new(),
        summary = new(),
        value = new();
    private SafeFileHandle? file;
    private long position;
    private bool failing,
        disposed;

    /// <param name="folder">Of the run.</param>
    /// <param name="first">The first step that this file has; those of previous files from there on are void.</param>
    /// <param name="report">Called once when it cannot be written, and again when it can.</param>
    /// <param name="clock">Wall time of events.</param>
    public EventFile(string folder, long first, Action<string> report, TimeProvider clock)
    {
        (this.folder, this.report, this.clock) = (folder, report, clock);
        lock (gate)
        {
            Begin(clock.GetUtcNow(), 0);
            Bytes(message, FileVersion, "brain.Event:2"u8);
            Record();
            Begin(clock.GetUtcNow(), first);
            Bytes(message, SessionLog, [SessionStatus, SessionStart]);
            Record();
            Send();
        }
    }

    /// <summary>Values at one step.</summary>
    public void Scalars(long step, IEnumerable<(string Name, double Value)> values, DateTimeOffset? time = null)
    {
        lock (gate)
        {
            if (disposed)
                return;
            // What waits is bounded by leaving out what comes later; the store has it.
            if (records.WrittenCount < Waiting)
                Put(step, values, time ?? clock.GetUtcNow());
            Send();
        }
    }

    public void Dispose()
    {
        lock (gate)
        {
            if (disposed)
                return;
            Send();
            disposed = true;
            file?.Dispose();
        }
    }

    /// <summary>CRC-32C (Castagnoli) of bytes.</summary>
    internal static uint Crc(ReadOnlySpan<byte> bytes)
    {
        var crc = uint.MaxValue;
        for (; bytes.Length >= 8; bytes = bytes[8..])
            crc = BitOperations.Crc32C(crc, BinaryPrimitives.ReadUInt64LittleEndian(bytes));
        foreach (var one in bytes)
            crc = BitOperations.Crc32C(crc, one);
        return ~crc;
    }

    private void Put(long step, IEnumerable<(string Name, double Value)> values, DateTimeOffset time)
    {
        summary.ResetWrittenCount();
        foreach (var (name, number) in values)
        {
            value.ResetWrittenCount();
            Bytes(value, ValueTag, Encoding.UTF8.GetBytes(name));
            Varint(value, SimpleValue);
            BinaryPrimitives.WriteSingleLittleEndian(value.GetSpan(4), (float)number);
            value.Advance(4);
            Bytes(summary, SummaryValue, value.WrittenSpan);
        }
        Begin(time, step);
        Bytes(message, Summary, summary.WrittenSpan);
        Record();
    }

    private void Begin(DateTimeOffset time, long step)
    {
        message.ResetWrittenCount();
        Varint(message, WallTime);
        BinaryPrimitives.WriteDoubleLittleEndian(message.GetSpan(8), (time - DateTimeOffset.UnixEpoch).TotalSeconds);
        message.Advance(8);
        Varint(message, Step);
        Varint(message, (ulong)step);
    }

    /// <summary>Frames the message and puts it behind what waits.</summary>
    private void Record()
    {
        var header = records.GetSpan(12);
        BinaryPrimitives.WriteUInt64LittleEndian(header, (ulong)message.WrittenCount);
        BinaryPrimitives.WriteUInt32LittleEndian(header[8..], Masked(header[..8]));
        records.Advance(12);
        records.Write(message.WrittenSpan);
        BinaryPrimitives.WriteUInt32LittleEndian(records.GetSpan(4), Masked(message.WrittenSpan));
        records.Advance(4);

        static uint Masked(ReadOnlySpan<byte> bytes) => BitOperations.RotateRight(Crc(bytes), 15) + 0xa282ead8;
    }

    /// <summary>Writes what waits at its place, so that what a full disk cut off is written over.</summary>
    private void Send()
    {
        try
        {
            file ??= Open();
            RandomAccess.Write(file, records.WrittenSpan, position);
            position += records.WrittenCount;
            records.ResetWrittenCount();
            if (failing)
                report("TensorBoard's event file is written again, with what waited.");
            failing = false;
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            if (!failing)
                report($"TensorBoard's event file cannot be written in {folder}: {e.Message} The training goes on.");
            failing = true;
        }
    }

    private SafeFileHandle Open()
    {
        Directory.CreateDirectory(folder);
        // TensorBoard reads a folder's files in the order of their names, so a later one must have a later time
        // whatever the clock says.
        var time = Directory
            .EnumerateFiles(folder, "events.out.tfevents.*")
            .Select(path => Path.GetFileName(path).Split('.'))
            .Select(parts =>
                parts.Length > 3 && long.TryParse(parts[3], CultureInfo.InvariantCulture, out var seconds)
                    ? seconds + 1
                    : 0
            )
            .Append(clock.GetUtcNow().ToUnixTimeSeconds())
            .Max();
        var name = string.Create(
            CultureInfo.InvariantCulture,
            $"events.out.tfevents.{time:d10}.{Environment.MachineName}"
        );
        return File.OpenHandle(
            Path.Combine(folder, name),
            FileMode.CreateNew,
            FileAccess.Write,
            FileShare.ReadWrite | FileShare.Delete
        );
    }

    private static void Bytes(ArrayBufferWriter<byte> target, int field, ReadOnlySpan<byte> bytes)
    {
        Varint(target, (ulong)field);
        Varint(target, (ulong)bytes.Length);
        target.Write(bytes);
    }

    private static void Varint(ArrayBufferWriter<byte> target, ulong number)
    {
        var span = target.GetSpan(10);
        var count = 0;
        for (; number >= 0x80; number >>= 7)
            span[count++] = (byte)(number | 0x80);
        span[count++] = (byte)number;
        target.Advance(count);
    }
}
