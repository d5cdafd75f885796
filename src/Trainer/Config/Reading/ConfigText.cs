using System.Buffers;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Unicode;

namespace Memopt.Trainer.Config.Reading;

/// <summary>The text of a settings file: JSON in which comments and trailing commas are allowed.</summary>
/// <param name="file">The file's bytes.</param>
internal sealed class ConfigText(byte[] file)
{
    private static readonly JsonReaderOptions relaxed = new()
    {
        CommentHandling = JsonCommentHandling.Skip,
        AllowTrailingCommas = true,
    };

    /// <summary>The bytes without the mark that some editors put before them.</summary>
    public byte[] Bytes { get; } = file.AsSpan().StartsWith(Encoding.UTF8.Preamble) ? file[3..] : file;

    public Utf8JsonReader Reader() => new(Bytes, relaxed);

    /// <summary>Where the text ends that is UTF-8; null when all of it is.</summary>
    public int? EndOfUtf8() =>
        Utf8.ToUtf16(Bytes, new char[Bytes.Length], out var read, out _, replaceInvalidSequences: false)
        == OperationStatus.Done
            ? null
            : read;

    /// <summary>The byte at which the JSON is not valid.</summary>
    public int Offset(JsonException fault)
    {
        var start = 0;
        for (var lines = fault.LineNumber ?? 0; lines > 0; lines--)
            start += Bytes.AsSpan(start).IndexOf((byte)'\n') + 1;
        return start + (int)(fault.BytePositionInLine ?? 0);
    }

    /// <summary>The JSON on one line, without comments.</summary>
    public string Compact() =>
        JsonNode
            .Parse(
                Bytes,
                documentOptions: new() { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true }
            )!
            .ToJsonString();
}
