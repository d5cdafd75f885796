namespace Memopt.Hub;

/// <summary>A model as its server lists it.</summary>
/// <param name="Commit">The commit, or where a server has none, a name made of the files' hashes.</param>
/// <param name="Files">By path.</param>
internal sealed record RemoteModel(string Commit, IReadOnlyDictionary<string, RemoteFile> Files);

/// <summary>One file of a model on its server.</summary>
/// <param name="Path">Inside the model.</param>
/// <param name="Url">Where its bytes are.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Blob">Its name in the cache: the hub's ETag.</param>
/// <param name="Hash">What its bytes must hash to, when the server says so.</param>
/// <param name="Validator">The ETag that a server must answer with; null when not known.</param>
/// <param name="Resumable">Whether another request is sure to give the same bytes.</param>
/// <param name="Login">Sent to the origin it belongs to only.</param>
internal sealed record RemoteFile(
    string Path,
    Uri Url,
    long Size,
    string Blob,
    Digest? Hash,
    string? Validator,
    bool Resumable,
    Login? Login
);

/// <summary>A header that proves who asks, and the only origin that may see it.</summary>
internal sealed record Login(Uri Origin, string Header, string Value)
{
    public bool Fits(Uri url) => Origin.Scheme == url.Scheme && Origin.Host == url.Host && Origin.Port == url.Port;
}
