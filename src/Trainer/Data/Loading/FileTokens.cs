namespace Memopt.Trainer.Data.Loading;

/// <summary>The tokens of a file.</summary>
/// <param name="Shards">In the order of its rows.</param>
/// <param name="Hash">SHA-256 of the file, in hexadecimal.</param>
internal sealed record FileTokens(IReadOnlyList<TokenShard> Shards, string Hash);
