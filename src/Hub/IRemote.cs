namespace Memopt.Hub;

/// <summary>Someone who serves models.</summary>
internal interface IRemote
{
    /// <summary>Folder of the cache, under <see cref="CacheRoot"/>.</summary>
    string CacheFolder { get; }

    string CacheRoot { get; }

    /// <summary>The revision taken when none is named.</summary>
    string DefaultRevision { get; }

    /// <param name="revision">Branch, tag or commit.</param>
    /// <param name="stop">Gives up.</param>
    Task<RemoteModel> ListAsync(string revision, CancellationToken stop);
}
