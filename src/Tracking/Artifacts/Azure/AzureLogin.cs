using Azure.Core;
using Azure.Identity;

namespace Memopt.Tracking;

/// <summary>Tokens for Azure storage from whatever login this machine has: environment, workload or managed identity,
/// az, Visual Studio.</summary>
public sealed class AzureLogin
{
    private static readonly TokenRequestContext storage = new(["https://storage.azure.com/.default"]);
    private readonly Lazy<DefaultAzureCredential> credential = new(() => new());

    /// <summary>A bearer token; the credential keeps it while it is good.</summary>
    public async ValueTask<string> TokenAsync(CancellationToken stop)
    {
        try
        {
            return (await credential.Value.GetTokenAsync(storage, stop).ConfigureAwait(false)).Token;
        }
        catch (AuthenticationFailedException e)
        {
            throw new TrackingException($"No login for Azure storage: {e.Message.Split('\n')[0]}", e);
        }
    }
}
