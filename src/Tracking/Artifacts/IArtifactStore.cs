namespace Memopt.Tracking;

/// <summary>Files kept by the sha256 of their content: the same content is stored once.</summary>
public interface IArtifactStore
{
    /// <summary>Stores a folder (or one file) and returns its link; content that is there already is not written
    /// again.</summary>
    ArtifactLink Put(string name, string path);

    /// <summary>Writes an artifact's files under a folder, checking every hash.</summary>
    void Get(string hash, string intoFolder);

    /// <summary>Hashes of all artifacts.</summary>
    IReadOnlyList<string> List();

    /// <summary>An artifact's files.</summary>
    IReadOnlyList<ArtifactFile> Files(string hash);

    /// <summary>Reads all content of an artifact and says what is missing or was changed; nothing when it is
    /// whole.</summary>
    IReadOnlyList<string> Verify(string hash);

    /// <summary>Removes an artifact and the content that no other artifact names.</summary>
    void Delete(string hash);
}
