namespace Memopt.Core.Tests;

public sealed class TransientExceptionTests
{
    [Theory]
    [InlineData(408, true)]
    [InlineData(425, true)]
    [InlineData(429, true)]
    [InlineData(500, true)]
    [InlineData(503, true)]
    [InlineData(522, true)]
    [InlineData(404, false)]
    [InlineData(409, false)]
    [InlineData(501, false)]
    [InlineData(505, false)]
    [InlineData(507, false)]
    public void Transient_status_codes_are_those_that_pass(int status, bool transient) =>
        Assert.Equal(transient, TransientException.IsStatus(status));

    [Fact]
    public void Request_cancelled_is_transient_only_when_it_timed_out()
    {
        Assert.True(TransientException.Is(new TaskCanceledException("late", new TimeoutException())));
        Assert.False(TransientException.Is(new TaskCanceledException("cancelled by the caller")));
        Assert.True(TransientException.Is(new HttpRequestException()));
        Assert.False(TransientException.Is(new UnauthorizedAccessException()));
    }
}
