using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>What a run left and a storage account is to have. It is noted beside the local artifacts until it is there,
/// so that a later process can go on.</summary>
/// <param name="Run">The run.</param>
/// <param name="Link">Its name, content, and where it lies.</param>
/// <param name="Files">Its files under <see cref="ArtifactLink.Path"/>; null when they are in the local store.</param>
public sealed record Upload(string Run, ArtifactLink Link, IReadOnlyList<ArtifactFile>? Files = null)
{
    /// <summary>A folder whose hashes are known. Nothing of it is copied: it is sent from where it lies, if it still
    /// lies there when its turn comes.</summary>
    public static Upload Folder(string run, string name, string folder, IReadOnlyList<ArtifactFile> files)
    {
        var manifest = Manifest.Of(files);
        return new(run, new(name, manifest.Hash, manifest.Bytes, folder), manifest.Files);
    }

    /// <summary>The link once it is in a storage account. Folders that are sent from where they lie, checkpoints, do
    /// not stay there.</summary>
    internal ArtifactLink Safe(BlobLocation location) =>
        Link with
        {
            Place = location.ToString(),
            Path = Files is null ? Link.Path : null,
        };

    /// <summary>Whether its files are still what they were. A folder that was replaced tells by its smallest file, a
    /// checkpoint's manifest.</summary>
    internal bool There(LocalArtifacts local) =>
        Files is null
            ? local.Has(Link.Hash)
            : Files.All(file => new FileInfo(Source(file)) is { Exists: true } found && found.Length == file.Bytes)
                && Files.MinBy(file => file.Bytes) is var least
                && (least is null || Same(least));

    internal string Source(ArtifactFile file) => Path.Combine(Link.Path!, file.Path);

    private bool Same(ArtifactFile file)
    {
        try
        {
            return Sha256.OfFile(Source(file)) == file.Hash;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}

/// <summary>What is not in the storage account, and why.</summary>
/// <param name="Upload">What.</param>
/// <param name="Why">What the last attempt met, or null when there was none.</param>
/// <param name="Next">The next command that fixes the fault; null where none does.</param>
public sealed record PendingUpload(Upload Upload, string? Why, string? Next);
