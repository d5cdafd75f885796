namespace Memopt.Hub;

/// <summary>Settings of downloads: addresses, tokens, folders, patience. The tool fills them from the
/// environment.</summary>
public sealed record HubSettings
{
    /// <summary>The Hugging Face Hub or a mirror of it (HF_ENDPOINT).</summary>
    public Uri Endpoint { get; init; } = new("https://huggingface.co");

    /// <summary>Token for <see cref="Endpoint"/>, and for no other host (HF_TOKEN).</summary>
    public string? Token { get; init; }

    /// <summary>Hugging Face's cache, shared with its Python and JavaScript clients (HF_HUB_CACHE, HF_HOME).</summary>
    public required string HubCache { get; init; }

    /// <summary>The same layout for models from elsewhere.</summary>
    public required string OwnCache { get; init; }

    public Uri ModelScope { get; init; } = new("https://modelscope.cn");

    public string? ModelScopeToken { get; init; }

    /// <summary>Where a storage account's blobs are; {account} is replaced.</summary>
    public string Azure { get; init; } = "https://{account}.blob.core.windows.net";

    /// <summary>Shared access signature for az:// sources (AZURE_STORAGE_SAS_TOKEN).</summary>
    public string? AzureSas { get; init; }

    /// <summary>Gives a bearer token for Azure storage when there is no signature.</summary>
    public Func<CancellationToken, ValueTask<string>>? AzureToken { get; init; }

    /// <summary>Use what is in the caches and ask no server.</summary>
    public bool Offline { get; init; }

    /// <summary>The program's own folder; the embedded model is in it.</summary>
    public required string Program { get; init; }

    /// <summary>Requests at once, over all files.</summary>
    public int Connections { get; init; } = 8;

    /// <summary>Longest time without a byte before a connection is given up.</summary>
    public TimeSpan StallTimeout { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>Longest time until a server answers.</summary>
    public TimeSpan ResponseTimeout { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Attempts in a row without a new byte before giving up.</summary>
    public int Attempts { get; init; } = 8;

    /// <summary>Size of a range asked for at once.</summary>
    public long PartBytes { get; init; } = 32L << 20;
}
