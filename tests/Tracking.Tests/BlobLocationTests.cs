using Azure;

namespace Memopt.Tracking.Tests;

public sealed class BlobLocationTests
{
    [Theory]
    [InlineData(507, "InsufficientStorage", "is full")]
    [InlineData(409, "AccountQuotaExceeded", "is full")]
    [InlineData(403, "AuthorizationPermissionMismatch", "may not do that")]
    [InlineData(403, "AccountIsDisabled", "disabled")]
    [InlineData(418, "Odd", "418 Odd")]
    public void Fault_for_a_status_and_code_is_a_sentence(int status, string code, string expected) =>
        Assert.Contains(
            expected,
            BlobLocation
                .Parse("az://account/container/path")
                .Fault(new RequestFailedException(status, "said", code, null), reached: false)
                .Message
        );

    [Theory]
    [InlineData("az://account")]
    [InlineData("az://Account/container")]
    [InlineData("az://account/container/../x")]
    [InlineData("az://account/container?sig=secret")]
    public void Location_that_is_malformed_is_refused(string text)
    {
        var fault = Assert.Throws<TrackingException>(() => BlobLocation.Parse(text));
        Assert.DoesNotContain("secret", fault.Message);
        Assert.Contains("az://account/container/path", fault.Next);
    }
}
