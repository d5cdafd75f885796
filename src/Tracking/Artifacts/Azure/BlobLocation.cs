using System.Text.RegularExpressions;
using Azure;
using Azure.Identity;
using Azure.Storage.Blobs;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>A folder in Azure Blob Storage and the right to use it: a connection string, a shared access signature, or
/// else this machine's Azure login.</summary>
/// <param name="Account">The storage account.</param>
/// <param name="Container">A container that exists.</param>
/// <param name="Path">A folder in it, or empty.</param>
public sealed partial record BlobLocation(string Account, string Container, string Path)
{
    private const string Scheme = "az://";

    /// <summary>For a test server or an account by its key; it names the endpoint too.</summary>
    public string? ConnectionString { get; init; }

    public string? Sas { get; init; }

    /// <summary>Whether a setting means such a place and not a folder here.</summary>
    public static bool Is(string text) => text.StartsWith(Scheme, StringComparison.Ordinal);

    /// <summary>Reads <c>az://account/container/path</c>.</summary>
    public static BlobLocation Parse(string text) =>
        Form().Match(text) is { Success: true } match && !match.Groups["path"].Value.Split('/').Contains("..")
            ? new(match.Groups["account"].Value, match.Groups["container"].Value, match.Groups["path"].Value.Trim('/'))
            : throw new TrackingException($"The place \"{Secrets.Redact(text)}\" is not understood.")
            {
                Failed = false,
                Next =
                    "write it as az://account/container/path; keys and signatures go into "
                    + "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_SAS_TOKEN",
            };

    /// <summary>As a user writes it, without secrets.</summary>
    public override string ToString() => $"{Scheme}{Account}/{Container}{(Path.Length > 0 ? "/" + Path : "")}";

    internal BlobContainerClient Connect()
    {
        // Retries are the caller's. The version of the protocol is the newest that test servers speak.
        var options = new BlobClientOptions(BlobClientOptions.ServiceVersion.V2025_11_05)
        {
            Retry = { MaxRetries = 0, NetworkTimeout = TimeSpan.FromSeconds(60) },
            Diagnostics = { IsTelemetryEnabled = false },
        };
        try
        {
            var address = new Uri($"https://{Account}.blob.core.windows.net");
            var service =
                ConnectionString is not null ? new BlobServiceClient(ConnectionString, options)
                : Sas is not null ? new BlobServiceClient(address, new AzureSasCredential(Sas.TrimStart('?')), options)
                : new BlobServiceClient(address, new DefaultAzureCredential(), options);
            return service.AccountName == Account
                ? service.GetBlobContainerClient(Container)
                : throw new TrackingException(
                    $"{this} is in another storage account than the connection string, which is for \""
                        + $"{service.AccountName}\"."
                )
                {
                    Failed = false,
                    Next = "correct tracking.artifacts, or change or unset AZURE_STORAGE_CONNECTION_STRING",
                };
        }
        catch (Exception e) when (e is FormatException or ArgumentException)
        {
            throw new TrackingException("The connection string or signature for Azure storage cannot be read.", e)
            {
                Failed = false,
                Next = "set AZURE_STORAGE_CONNECTION_STRING to what the portal shows under \"Access keys\"",
            };
        }
    }

    [GeneratedRegex(
        @"^az://(?<account>[a-z0-9]{3,24})/(?<container>[a-z0-9$][a-z0-9-]{2,62})(?<path>(/[^?#]*)?)$",
        RegexOptions.ExplicitCapture
    )]
    private static partial Regex Form();
}
