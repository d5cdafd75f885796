using System.Globalization;
using System.Text.RegularExpressions;
using Azure;
using Azure.Core;
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

    /// <summary>One clear fault for what the service, the login or the network said.</summary>
    /// <param name="e">What was thrown.</param>
    /// <param name="reached">Whether requests got through before: a login that was good fails when the network is
    /// away.</param>
    internal TrackingException Fault(Exception e, bool reached)
    {
        if (e is AuthenticationFailedException)
            return new($"{this}: no login for Azure storage: {FirstLine(e)}", e)
            {
                Next = "az login, or set AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING",
                IsTransient = reached,
            };
        if (e is (IOException and not HttpIOException) or UnauthorizedAccessException)
            return new($"{this}: {e.Message}", e);
        if (e is not RequestFailedException { Status: > 0 } failed)
            return new($"{this} cannot be reached: {FirstLine(e)}", e)
            {
                Next = "what is stored here stays; when the network is back: dotnet memopt artifacts sync",
                IsTransient = true,
            };
        var (what, next) = (failed.Status, failed.ErrorCode ?? "") switch
        {
            (_, "ContainerNotFound") => (
                $"there is no container \"{Container}\"",
                $"az storage container create --account-name {Account} --name {Container}, or correct "
                    + "tracking.artifacts"
            ),
            (_, "ContainerBeingDeleted") => (
                $"the container \"{Container}\" is being deleted",
                "use another container, or try again in a minute"
            ),
            (_, "AccountIsDisabled") => ("the storage account is disabled", "see the subscription in the portal"),
            (507, _) or (413, _) => ("the account is full", full),
            (_, var code)
                when code.Contains("Quota", StringComparison.Ordinal)
                    || code.Contains("Capacity", StringComparison.Ordinal)
                    || code.Contains("InsufficientStorage", StringComparison.Ordinal) => ("the account is full", full),
            (401 or 403, _) when Expired() is { } end => (
                $"the shared access signature expired at {end:u}",
                "make a new one with the rights racwl and set AZURE_STORAGE_SAS_TOKEN"
            ),
            (
                401
                    or 403,
                "AuthorizationPermissionMismatch"
                    or "AuthorizationResourceTypeMismatch"
                    or "InsufficientAccountPermissions"
            ) => (
                "this login may not do that",
                $"give it the role \"Storage Blob Data Contributor\" on {Account}, or a signature with the rights racwl"
            ),
            (401 or 403, _) => (
                "the key or signature is refused",
                "check AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN or az login, and the account's firewall"
            ),
            _ => (
                $"the service answers {failed.Status} {failed.ErrorCode}: {FirstLine(e)}",
                "try again: dotnet memopt artifacts sync"
            ),
        };
        return new($"{this}: {what} ({failed.Status} {failed.ErrorCode}).", e)
        {
            Next = next,
            IsTransient = IsTransient(failed),
        };
    }

    /// <summary>Whether the same request may succeed later: a busy or restarting server, bytes damaged on the
    /// way.</summary>
    internal static bool IsTransient(RequestFailedException e) =>
        e.Status is 0 or 408 or 429 or 500 or 502 or 503 or 504 || e.ErrorCode == "Md5Mismatch";

    private const string full = "free some or raise the quota, then: dotnet memopt artifacts sync";

    private static string FirstLine(Exception e) => Secrets.Redact(e.Message.Split('\n')[0].TrimEnd());

    /// <summary>When the signature ended, if it has.</summary>
    private DateTimeOffset? Expired() =>
        Expiry().Match(ConnectionString ?? Sas ?? "") is { Success: true } match
        && DateTimeOffset.TryParse(
            Uri.UnescapeDataString(match.Groups["end"].Value),
            CultureInfo.InvariantCulture,
            DateTimeStyles.AssumeUniversal,
            out var end
        )
        && end < DateTimeOffset.UtcNow
            ? end
            : null;

    [GeneratedRegex(
        @"^az://(?<account>[a-z0-9]{3,24})/(?<container>[a-z0-9$][a-z0-9-]{2,62})(?<path>(/[^?#]*)?)$",
        RegexOptions.ExplicitCapture
    )]
    private static partial Regex Form();

    [GeneratedRegex(@"(^|[?&=])se=(?<end>[^&;]+)", RegexOptions.ExplicitCapture)]
    private static partial Regex Expiry();
}
