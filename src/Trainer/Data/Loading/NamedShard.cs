namespace Memopt.Trainer.Data.Loading;

/// <summary>A shard and its name in the cache; the name is empty for a shard that is not kept.</summary>
internal sealed record NamedShard(TokenShard Shard, string Name);
