namespace Memopt.Tracking;

/// <summary>A file or folder a run left, by content.</summary>
/// <param name="Name">adapter, checkpoint-000200, …</param>
/// <param name="Hash">sha256 of the manifest, hex. Empty takes back what was linked under the name.</param>
/// <param name="Bytes">Sum of its files.</param>
/// <param name="Path">Where it lies for use, or null when only in the artifact store.</param>
/// <param name="Place">The storage account where it is safe, az://account/container/path; null while it is on this
/// machine only.</param>
public sealed record ArtifactLink(string Name, string Hash, long Bytes, string? Path = null, string? Place = null);
