namespace Memopt.Trainer.Data.Loading;

/// <summary>Files whose tokens are kept in the cache: those that are there, and those that are missing.</summary>
internal sealed class CachedFiles(TokenCache cache, IReadOnlyDictionary<SourceFile, FileKey> keys)
{
    private readonly Dictionary<SourceFile, FileTokens> found = [];

    public TokenCache Cache => cache;

    public Dictionary<SourceFile, FileTokens> Tokens => found;

    public IReadOnlyList<SourceFile> Missing => [.. keys.Keys.Where(file => !found.ContainsKey(file))];

    /// <summary>Looks for the files that are missing; whether none is now.</summary>
    public bool Find()
    {
        foreach (var file in Missing)
        {
            var key = keys[file];
            if (cache.Find(key.Hash, key.Recipe, file.File.Path) is { } shards)
                found[file] = new(shards, key.Hash);
        }
        return found.Count == keys.Count;
    }

    /// <summary>The part of a shard's name that is not the text of its rows.</summary>
    public byte[] Salt(SourceFile file) => Convert.FromHexString(keys[file].Recipe);

    /// <summary>Notes the shards of a file, all of which the cache has now.</summary>
    public void Complete(SourceFile file, IReadOnlyList<NamedShard> shards)
    {
        var key = keys[file];
        cache.Complete(key.Hash, key.Recipe, shards.Select(shard => (shard.Name, shard.Shard.FirstLine)));
        found[file] = new([.. shards.Select(shard => shard.Shard)], key.Hash);
    }
}
