using System.Security.Cryptography;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>A file of an artifact.</summary>
/// <param name="Path">Relative, with / between folders.</param>
/// <param name="Hash">sha256 of its content, hex.</param>
/// <param name="Bytes">Its length.</param>
public sealed record ArtifactFile(string Path, string Hash, long Bytes);

/// <summary>An artifact's files as they are stored, the same bytes in every store: their sha256 is the artifact's hash.</summary>
internal sealed class Manifest
{
    private static readonly JsonSerializerOptions json = new() { WriteIndented = true, NewLine = "\n" };

    private Manifest(IReadOnlyList<ArtifactFile> files, byte[] content) => (Files, Content, Hash) = (files, content, Convert.ToHexStringLower(SHA256.HashData(content)));

    /// <summary>In order of their paths.</summary>
    public IReadOnlyList<ArtifactFile> Files { get; }

    public byte[] Content { get; }

    public string Hash { get; }

    public long Bytes => Files.Sum(file => file.Bytes);

    /// <summary>The manifest of a folder or of one file, and where the content of each hash lies.</summary>
    public static (Manifest Manifest, IReadOnlyDictionary<string, string> Sources) Of(string path)
    {
        var root = Directory.Exists(path) ? path : Path.GetDirectoryName(Path.GetFullPath(path))!;
        var sources = new Dictionary<string, string>();
        var files = (Directory.Exists(path) ? Directory.EnumerateFiles(path, "*", SearchOption.AllDirectories) : [Path.GetFullPath(path)]).Order(StringComparer.Ordinal).Select(file =>
        {
            var hash = HashOf(file);
            sources[hash] = file;
            return new ArtifactFile(Path.GetRelativePath(root, file).Replace('\\', '/'), hash, new FileInfo(file).Length);
        }).ToList();
        return (new(files, JsonSerializer.SerializeToUtf8Bytes(files, json)), sources);
    }

    /// <summary>Reads one that was stored under <paramref name="hash"/>; throws when its bytes are others.</summary>
    /// <param name="content">What is stored.</param>
    /// <param name="hash">Its name there.</param>
    /// <param name="where">For the message.</param>
    public static Manifest Read(byte[] content, string hash, string where)
    {
        try
        {
            var manifest = new Manifest(JsonSerializer.Deserialize<List<ArtifactFile>>(content, json) ?? [], content);
            if (manifest.Hash != hash)
                throw new TrackingException($"The manifest {where} was changed.");
            foreach (var file in manifest.Files)
                Checked(file.Hash, where);
            return manifest;
        }
        catch (JsonException e)
        {
            throw new TrackingException($"The manifest {where} cannot be read: {e.Message}", e);
        }
    }

    /// <summary>Whether a text is a hash, and so can be part of a path.</summary>
    public static bool IsHash(string text) => text.Length == 64 && text.All(char.IsAsciiHexDigitLower);

    public static string HashOf(string file)
    {
        using var stream = File.OpenRead(file);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    private static void Checked(string hash, string where)
    {
        if (!IsHash(hash))
            throw new TrackingException($"The manifest {where} names \"{hash}\", which is no sha256.");
    }
}
