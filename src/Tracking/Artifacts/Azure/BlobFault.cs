using System.Globalization;
using System.Text.RegularExpressions;
using Azure;
using Azure.Identity;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>What the service, the login or the network said, as one clear fault with a next step.</summary>
internal static partial class BlobFault
{
    private const string roomNeeded = "free some or raise the quota, then: dotnet memopt artifacts sync";

    /// <param name="location">Where it happened.</param>
    /// <param name="e">What was thrown.</param>
    /// <param name="reached">Whether requests got through before: a login that was good fails when the network is
    /// away.</param>
    public static TrackingException Fault(this BlobLocation location, Exception e, bool reached)
    {
        if (e is AuthenticationFailedException)
            return new($"{location}: no login for Azure storage: {FirstLine(e)}", e)
            {
                Next = "az login, or set AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING",
                IsTransient = reached,
            };
        if (e is (IOException and not HttpIOException) or UnauthorizedAccessException)
            return new($"{location}: {e.Message}", e);
        if (e is not RequestFailedException { Status: > 0 } failed)
            return new($"{location} cannot be reached: {FirstLine(e)}", e)
            {
                Next = "what is stored here stays; when the network is back: dotnet memopt artifacts sync",
                IsTransient = true,
            };
        var (what, next) = Answer(location, failed);
        return new($"{location}: {what} ({failed.Status} {failed.ErrorCode}).", e)
        {
            Next = next,
            IsTransient = IsTransient(failed),
        };
    }

    /// <summary>Whether the same request may succeed later. Azure's client gives status 0 where no answer came, cancels
    /// a request that takes too long, and the service says so when bytes were damaged on the way.</summary>
    public static bool IsTransient(Exception e) =>
        e is RequestFailedException failed
            ? failed.Status == 0 || TransientException.IsStatus(failed.Status) || failed.ErrorCode == "Md5Mismatch"
            : TransientException.Is(e) || e is OperationCanceledException;

    private static (string What, string Next) Answer(BlobLocation location, RequestFailedException failed) =>
        (failed.Status, failed.ErrorCode ?? "") switch
        {
            (_, "ContainerNotFound") => (
                $"there is no container \"{location.Container}\"",
                $"az storage container create --account-name {location.Account} --name {location.Container}, or "
                    + "correct tracking.artifacts"
            ),
            (_, "ContainerBeingDeleted") => (
                $"the container \"{location.Container}\" is being deleted",
                "use another container, or try again in a minute"
            ),
            (_, "AccountIsDisabled") => ("the storage account is disabled", "see the subscription in the portal"),
            (507 or 413, _) => ("the account is full", roomNeeded),
            (_, var code) when IsFull(code) => ("the account is full", roomNeeded),
            (401 or 403, var code) => Refusal(location, code),
            _ => (
                $"the service answers {failed.Status} {failed.ErrorCode}: {FirstLine(failed)}",
                "try again: dotnet memopt artifacts sync"
            ),
        };

    private static bool IsFull(string code) =>
        code.Contains("Quota", StringComparison.Ordinal)
        || code.Contains("Capacity", StringComparison.Ordinal)
        || code.Contains("InsufficientStorage", StringComparison.Ordinal);

    private static (string What, string Next) Refusal(BlobLocation location, string code) =>
        Expired(location) is { } end
            ? (
                $"the shared access signature expired at {end:u}",
                "make a new one with the rights racwl and set AZURE_STORAGE_SAS_TOKEN"
            )
        : code
            is "AuthorizationPermissionMismatch"
                or "AuthorizationResourceTypeMismatch"
                or "InsufficientAccountPermissions"
            ? (
                "this login may not do that",
                $"give it the role \"Storage Blob Data Contributor\" on {location.Account}, or a signature with the "
                    + "rights racwl"
            )
        : (
            "the key or signature is refused",
            "check AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN or az login, and the account's firewall"
        );

    private static string FirstLine(Exception e) => Secrets.Redact(e.Message.Split('\n')[0].TrimEnd());

    /// <summary>When the signature ended, if it has.</summary>
    private static DateTimeOffset? Expired(BlobLocation location) =>
        Expiry().Match(location.ConnectionString ?? location.Sas ?? "") is { Success: true } match
        && DateTimeOffset.TryParse(
            Uri.UnescapeDataString(match.Groups["end"].Value),
            CultureInfo.InvariantCulture,
            DateTimeStyles.AssumeUniversal,
            out var end
        )
        && end < TimeProvider.System.GetUtcNow()
            ? end
            : null;

    [GeneratedRegex(@"(^|[?&=])se=(?<end>[^&;]+)", RegexOptions.ExplicitCapture)]
    private static partial Regex Expiry();
}
