using System.IO.Compression;
using Memopt.Core;
using Memopt.Hub;

namespace Memopt.Trainer.Sources;

/// <summary>One file of rows.</summary>
/// <param name="Path">Where it is.</param>
/// <param name="Format">How its rows are written; Json still may turn out to be JSON Lines.</param>
/// <param name="Compression"><c>.gz</c>, <c>.br</c>, <c>.zst</c>, or null.</param>
internal sealed record DataFile(string Path, DataFormat Format, string? Compression)
{
    // Else .NET takes a gzip or Brotli file that was cut off for a whole one. It looks once, at the first stream.
    static DataFile() => AppContext.SetSwitch("System.IO.Compression.UseStrictValidation", true);

    public long Size =>
        new FileInfo(Path) is var file && file.LinkTarget is not null
            ? new FileInfo(file.ResolveLinkTarget(returnFinalTarget: true)!.FullName).Length
            : file.Length;

    /// <summary>Its bytes in order, decompressed. Reports how far it is in the bytes that are stored.</summary>
    public Stream Open(Action<long>? at = null)
    {
        UntrustedFile.Check(Path);
        var stored = new FileStream(
            Path,
            new FileStreamOptions { Options = FileOptions.SequentialScan, BufferSize = 1 << 16 }
        );
        Stream counted = at is null ? stored : new CountedStream(stored, at);
        return Compression switch
        {
            ".gz" => new GZipStream(counted, CompressionMode.Decompress),
            ".br" => new BrotliStream(counted, CompressionMode.Decompress),
            ".zst" => new ZstdSharp.DecompressionStream(counted, leaveOpen: false),
            _ => counted,
        };
    }
}
