using System.Runtime.InteropServices;
using System.Text;

namespace Memopt.Core;

/// <summary>
/// Files that others made. They are read only where they are regular files, as a pipe or a device may never answer or
/// never end, and only up to a limit of their kind.
/// </summary>
public static partial class UntrustedFile
{
    /// <summary>config.json, adapter_config.json, tokenizer_config.json, memopt.json; the longest known is 1.2
    /// MB.</summary>
    public const int Settings = 8 << 20;

    /// <summary>A chat template or a data set's card; the longest known is 20 KB.</summary>
    public const int Text = 2 << 20;

    /// <summary>tokenizer.json; the longest known is 34 MB.</summary>
    public const int Tokenizer = 64 << 20;

    /// <summary>model.safetensors.index.json; the longest known is 9 MB.</summary>
    public const int Index = 32 << 20;

    /// <summary>All bytes of a file.</summary>
    /// <exception cref="UserFault">It is no regular file, or longer than the limit.</exception>
    public static byte[] ReadAllBytes(string file, int limit)
    {
        Check(file);
        using var handle = File.OpenHandle(file);
        // The length is only a first guess: files of /proc say 0.
        var bytes = new byte[Math.Min(RandomAccess.GetLength(handle), limit) + 1];
        var filled = 0;
        while (RandomAccess.Read(handle, bytes.AsSpan(filled), filled) is > 0 and var count)
        {
            filled += count;
            if (filled > limit)
            {
                throw new UserFault(
                    $"{file} is longer than such a file may be.",
                    found: $"more than {limit >> 20} MiB",
                    next: "docs/security.md lists the limits; check what the file is"
                );
            }
            if (filled == bytes.Length)
                Array.Resize(ref bytes, (int)Math.Min(2L * filled, limit + 1L));
        }
        return bytes[..filled];
    }

    /// <summary>The text of a file in UTF-8, with or without a mark in front.</summary>
    /// <exception cref="UserFault">It is no regular file, or longer than the limit.</exception>
    public static string ReadAllText(string file, int limit)
    {
        var bytes = ReadAllBytes(file, limit).AsSpan();
        return Encoding.UTF8.GetString(bytes[(bytes.StartsWith(Encoding.UTF8.Preamble) ? 3 : 0)..]);
    }

    /// <summary>Refuses what is no regular file once links are followed. A file that is missing passes.</summary>
    /// <exception cref="UserFault">It is a pipe, a device, a socket or a folder.</exception>
    public static void Check(string file)
    {
        if (Kind(file) is not { } kind)
            return;
        var target = File.ResolveLinkTarget(file, returnFinalTarget: true)?.FullName;
        throw new UserFault(
            $"{file} is not a regular file.",
            found: target is null ? kind : $"a link to {target}, {kind}",
            next: "put the file itself there"
        );
    }

    private static string? Kind(string file)
    {
        if (!OperatingSystem.IsLinux())
            return null;
        Span<byte> answer = stackalloc byte[256];
        // The layout of statx is the kernel's, the same on every processor; stx_mode lies at byte 28.
        if (statx(CurrentFolder, Path.GetFullPath(file), 0, TypeOfFile, ref MemoryMarshal.GetReference(answer)) != 0)
            return null;
        return (BitConverter.ToUInt16(answer[28..]) & 0xF000) switch
        {
            0x8000 => null,
            0x1000 => "a pipe",
            0x4000 => "a folder",
            0xC000 => "a socket",
            _ => "a device",
        };
    }

    private const int CurrentFolder = -100; // AT_FDCWD
    private const uint TypeOfFile = 1; // STATX_TYPE

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int statx(int folder, string path, int flags, uint mask, ref byte answer);
}
