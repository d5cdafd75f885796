namespace Memopt.Tracking;

/// <summary>How content goes to a storage account and comes from it.</summary>
internal sealed class BlobTransfer
{
    /// <summary>Blocks sent or ranges asked for at once.</summary>
    public const int AtOnce = 4;

    /// <summary>Receives the bytes of each block sent or range received.</summary>
    public Action<long>? Moved { get; set; }

    /// <summary>Bytes of a block, and of a range asked for at once (MD5 of a range ends at 4 MiB); a kill costs four of
    /// them at most. Files too large for 50,000 such blocks have larger ones.</summary>
    public int BlockBytes { get; set; } = 2 << 20;
}
