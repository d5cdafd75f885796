namespace Memopt.Trainer.Data.Loading;

/// <summary>What the cache knows a file by.</summary>
/// <param name="Hash">SHA-256 of the file, in hexadecimal.</param>
/// <param name="Recipe">All else that its tokens depend on, as <see cref="TokenCache.Recipe"/> has it.</param>
internal sealed record FileKey(string Hash, string Recipe);
