using System.Runtime.InteropServices;
using System.Text;

namespace Memopt.Tool.Cli;

/// <summary>Standard output or standard error, whose writes never throw. What cannot be written (a full disk, a closed
/// descriptor, a terminal that is gone) is dropped, and the first fault is kept, so that no output ends a training.
/// </summary>
internal sealed class StandardStream : Stream
{
    private readonly Stream? inner;
    private readonly string? closed;

    private StandardStream(int descriptor, Func<Stream> open)
    {
        try
        {
            inner = Given(descriptor) ? open() : throw new IOException("the stream is closed");
        }
        catch (Exception e) when (Expected(e))
        {
            closed = e.Message;
        }
    }

    public static StandardStream Output { get; } = new(1, Console.OpenStandardOutput);

    public static StandardStream Error { get; } = new(2, Console.OpenStandardError);

    /// <summary>Why something that was to be written was dropped; null when nothing was.</summary>
    public string? Fault { get; private set; }

    public override bool CanRead => false;

    public override bool CanSeek => false;

    public override bool CanWrite => true;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>Puts both in the place of the console's own, and an empty input in the place of a closed one. To be
    /// called before anything is read or printed.
    /// </summary>
    public static void Install()
    {
        if (!Given(0))
            Console.SetIn(TextReader.Null);
        Console.SetOut(Writer(Output));
        Console.SetError(Writer(Error));
    }

    public override void Write(ReadOnlySpan<byte> buffer)
    {
        if (inner is null)
        {
            Fault ??= closed;
            return;
        }
        try
        {
            inner.Write(buffer);
        }
        catch (Exception e) when (Expected(e))
        {
            Fault ??= e.Message;
        }
    }

    public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

    public override void Flush() { }

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    private static bool Expected(Exception e) =>
        e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException;

    private static StreamWriter Writer(StandardStream stream)
    {
        var encoding = Console.OutputEncoding;
        return new(
            stream,
            encoding.CodePage == Encoding.UTF8.CodePage ? new UTF8Encoding(false) : encoding,
            bufferSize: 256
        )
        {
            AutoFlush = true,
        };
    }

    /// <summary>Whether the process was started with this descriptor. Where it was not, the runtime has given the
    /// number to a pipe of its own, which is closed on exec as no inherited descriptor is; a write to it would reach
    /// the runtime's signal handling, and a read would wait for ever.
    /// </summary>
    private static bool Given(int descriptor)
    {
        const int getFlags = 1,
            closeOnExec = 1;
        return OperatingSystem.IsWindows()
            || (fcntl(descriptor, getFlags) is var flags && flags >= 0 && (flags & closeOnExec) == 0);
    }

    [DllImport("libc")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int fcntl(int descriptor, int command);
}
