using System.Text.Json;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>A file of an artifact.</summary>
/// <param name="Path">Relative, with / between folders.</param>
/// <param name="Hash">sha256 of its content, hex.</param>
/// <param name="Bytes">Its length.</param>
public sealed record ArtifactFile(string Path, string Hash, long Bytes);

/// <summary>An artifact's files as they are stored, the same bytes in every store: their sha256 is the artifact's
/// hash.</summary>
internal sealed class Manifest
{
    private static readonly JsonSerializerOptions json = new() { WriteIndented = true, NewLine = "\n" };

    private Manifest(IReadOnlyList<ArtifactFile> files, byte[] content) =>
        (Files, Content, Hash) = (files, content, Sha256.Of(content));

    /// <summary>In order of their paths.</summary>
    public IReadOnlyList<ArtifactFile> Files { get; }

    public byte[] Content { get; }

    public string Hash { get; }

    public long Bytes => Files.Sum(file => file.Bytes);

    /// <summary>The manifest of a folder or of one file, and where the content of each hash lies; of links what they
    /// lead to. Throws <see cref="TrackingException"/> when not all can be read.</summary>
    public static (Manifest Manifest, IReadOnlyDictionary<string, string> Sources) Of(string path)
    {
        try
        {
            var (whole, one) = (Path.GetFullPath(path), !Directory.Exists(path));
            var (root, sources) = (one ? Path.GetDirectoryName(whole)! : whole, new Dictionary<string, string>());
            var files = (one ? [whole] : Under(whole, [Real(new(whole)) ?? whole]))
                .Order(StringComparer.Ordinal)
                .Select(file =>
                {
                    using var stream = File.OpenRead(file);
                    var hash = Sha256.OfStream(stream);
                    sources[hash] = file;
                    return new ArtifactFile(
                        Path.GetRelativePath(root, file).Replace(Path.DirectorySeparatorChar, '/'),
                        hash,
                        stream.Length
                    );
                })
                .ToList();
            return (Of(files), sources);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TrackingException($"{path} cannot be stored: {e.Message}", e)
            {
                Next = "take out of it what cannot be read, or name less",
            };
        }
    }

    /// <summary>All files under a folder. A link to a folder that it is in would have no end.</summary>
    private static IEnumerable<string> Under(string folder, IReadOnlyList<string> within)
    {
        foreach (var file in Directory.EnumerateFiles(folder))
            yield return file;
        foreach (var inner in new DirectoryInfo(folder).EnumerateDirectories())
        {
            var real = Real(inner) ?? Path.Combine(within[^1], inner.Name);
            if (within.Contains(real))
                throw new IOException($"the link {inner.FullName} leads to a folder that it is in.");
            foreach (var file in Under(inner.FullName, [.. within, real]))
                yield return file;
        }
    }

    /// <summary>Where a link to a folder ends; null when it is none.</summary>
    private static string? Real(DirectoryInfo folder) =>
        folder.ResolveLinkTarget(returnFinalTarget: true) is { } target
            ? Path.TrimEndingDirectorySeparator(Path.GetFullPath(target.FullName))
            : null;

    /// <summary>The manifest of files whose hashes are known.</summary>
    public static Manifest Of(IEnumerable<ArtifactFile> files)
    {
        var sorted = files.OrderBy(file => file.Path, StringComparer.Ordinal).ToList();
        return new(sorted, JsonSerializer.SerializeToUtf8Bytes(sorted, json));
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
            {
                if (file?.Path is null || file.Hash is null)
                    throw new TrackingException($"The manifest {where} names a file without a path or a hash.");
                Checked(file.Hash, where);
            }
            return manifest;
        }
        catch (JsonException e)
        {
            throw new TrackingException($"The manifest {where} cannot be read: {e.Message}", e);
        }
    }

    /// <summary>Whether a text is a hash, and so can be part of a path.</summary>
    public static bool IsHash(string text) => text.Length == 64 && text.All(char.IsAsciiHexDigitLower);

    private static void Checked(string hash, string where)
    {
        if (!IsHash(hash))
            throw new TrackingException($"The manifest {where} names \"{hash}\", which is no sha256.");
    }
}
