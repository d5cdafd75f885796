using System.Collections.Concurrent;
using System.Net;
using System.Net.Http.Headers;
using Memopt.Core;
using Polly;
using Polly.CircuitBreaker;
using Polly.Retry;
using Polly.Timeout;

namespace Memopt.Hub;

/// <summary>HTTP as the downloads need it: retries with jitter, a limit on every attempt, a circuit breaker for each
/// host, and tokens that stay at home.</summary>
internal sealed class HubHttp : IDisposable
{
    private const int LargestDocument = 32 << 20,
        MostRedirects = 10;
    private static readonly TimeSpan longestWait = TimeSpan.FromMinutes(2);
    private readonly ConcurrentDictionary<string, ResiliencePipeline> hosts = new();
    private readonly HttpMessageInvoker invoker;
    private readonly ResiliencePipeline answer;
    private readonly HubSettings settings;
    private readonly TimeProvider clock;
    private readonly Func<double> random;

    public HubHttp(HubSettings settings, TimeProvider clock, Func<double> random)
    {
        (this.settings, this.clock, this.random) = (settings, clock, random);
        invoker = new(
            new SocketsHttpHandler
            {
                AllowAutoRedirect = false, // each hop is decided on here, for the token's sake
                AutomaticDecompression = DecompressionMethods.None, // ranges and hashes are of the stored bytes
                UseCookies = false,
                ConnectTimeout = TimeSpan.FromSeconds(10),
                MaxConnectionsPerServer = settings.Connections * 2,
                MaxResponseDrainSize = 0, // a body that is given up is not read to its end
                PooledConnectionIdleTimeout = TimeSpan.FromSeconds(30),
            }
        );
        answer = new ResiliencePipelineBuilder { TimeProvider = clock }
            .AddTimeout(settings.ResponseTimeout)
            .Build();
    }

    /// <summary>Called when something is tried again.</summary>
    public Action<string>? Retrying { get; set; }

    /// <summary>Runs an attempt until it succeeds, or has failed too often in a row.</summary>
    public async Task RetryAsync(Uri url, Func<CancellationToken, ValueTask> attempt, CancellationToken stop)
    {
        try
        {
            await hosts.GetOrAdd(url.Authority, Pipeline).ExecuteAsync(attempt, stop).ConfigureAwait(false);
        }
        catch (Exception e) when (IsTransient(e) && !stop.IsCancellationRequested)
        {
            throw new UserFault(
                $"{url.Host} does not deliver.",
                found: $"{settings.Attempts + 1} attempts in a row failed, the last with: {Reason(e)}",
                next: "run the same command again; what was fetched is kept. With a copy in the cache, --offline "
                    + "asks no server",
                inner: e
            )
            {
                Failed = true,
            };
        }
    }

    /// <summary>Asks once, following redirects. Faults that pass are <see cref="TransientException"/>, others are for
    /// the user.</summary>
    public async Task<HubResponse> GetAsync(Uri url, Login? login, RangeHeaderValue? range, CancellationToken stop)
    {
        string? linked = null;
        for (var hop = 0; hop < MostRedirects; hop++)
        {
            using var request = Request(url, login, range);
            var response = await answer
                .ExecuteAsync(async token => await invoker.SendAsync(request, token).ConfigureAwait(false), stop)
                .ConfigureAwait(false);
            if (response.Headers.TryGetValues("X-Linked-ETag", out var etags))
                linked = HubResponse.Bare(etags.First());
            if (Redirection(response) is { } location)
            {
                response.Dispose();
                url = Follow(url, location);
                continue;
            }
            var result = new HubResponse(response, url, linked);
            if (
                response.IsSuccessStatusCode
                || response.StatusCode is HttpStatusCode.NotFound or HttpStatusCode.RequestedRangeNotSatisfiable
            )
                return result;
            using (result)
                throw Refusal(result, login, redirected: hop > 0);
        }
        throw new UserFault(
            $"{url.Host} redirects in a circle.",
            found: $"{MostRedirects} redirects",
            next: "check the address of the model"
        )
        {
            Failed = true,
        };
    }

    /// <summary>A small document as a whole, and the headers it came with; null when there is none.</summary>
    public async Task<(byte[] Body, HubResponse Answer)?> DocumentAsync(Uri url, Login? login, CancellationToken stop)
    {
        (byte[], HubResponse)? result = null;
        await RetryAsync(
                url,
                async token =>
                {
                    using var got = await GetAsync(url, login, null, token).ConfigureAwait(false);
                    if (got.Status == HttpStatusCode.NotFound)
                        return;
                    var body = await answer
                        .ExecuteAsync(async limited => await Body(got, limited).ConfigureAwait(false), token)
                        .ConfigureAwait(false);
                    result = (body, got);
                },
                stop
            )
            .ConfigureAwait(false);
        return result;
    }

    /// <summary>Whether another attempt may do better. Polly has faults of its own.</summary>
    public static bool IsTransient(Exception e) =>
        TransientException.Is(e) || e is TimeoutRejectedException or BrokenCircuitException;

    public static string Reason(Exception e) =>
        e switch
        {
            TimeoutRejectedException => "no answer in time",
            OperationCanceledException { InnerException: TimeoutException } => "no connection in time",
            BrokenCircuitException => "too many attempts failed; the host is left alone for a while",
            { InnerException: { } inner } when e is HttpRequestException => inner.Message,
            _ => e.Message,
        };

    public void Dispose() => invoker.Dispose();

    private static HttpRequestMessage Request(Uri url, Login? login, RangeHeaderValue? range)
    {
        var request = new HttpRequestMessage(HttpMethod.Get, url) { Headers = { Range = range } };
        request.Headers.AcceptEncoding.ParseAdd("identity");
        request.Headers.UserAgent.ParseAdd("memopt");
        if (login?.Fits(url) == true)
        {
            request.Headers.TryAddWithoutValidation(login.Header, login.Value);
            if (
                login.Value.StartsWith("Bearer", StringComparison.Ordinal)
                && url.Host.Contains(".blob.", StringComparison.Ordinal)
            )
                request.Headers.TryAddWithoutValidation("x-ms-version", "2023-11-03");
        }
        return request;
    }

    /// <summary>Where an answer redirects to; null when it does not.</summary>
    private static Uri? Redirection(HttpResponseMessage response) =>
        (int)response.StatusCode is 301 or 302 or 303 or 307 or 308 ? response.Headers.Location : null;

    /// <summary>The address of the next hop, refused where it is less safe.</summary>
    private static Uri Follow(Uri url, Uri location)
    {
        var next = new Uri(url, location);
        if (url.Scheme == Uri.UriSchemeHttps && next.Scheme != Uri.UriSchemeHttps)
            throw new UserFault(
                $"{url.Host} redirects to an address without encryption.",
                found: $"{next.Scheme}://{next.Host}",
                next: "use another source"
            )
            {
                Failed = true,
            };
        if (next.Scheme != Uri.UriSchemeHttps && next.Scheme != Uri.UriSchemeHttp)
            throw new UserFault(
                $"{url.Host} redirects to what is no web address.",
                found: next.Scheme,
                next: "use another source"
            )
            {
                Failed = true,
            };
        return next;
    }

    private static async Task<byte[]> Body(HubResponse response, CancellationToken stop)
    {
        // What the server says of the length counts for nothing: it may say none, and what it compressed may be far
        // longer.
        using var body = await response.BodyAsync(stop).ConfigureAwait(false);
        using var whole = new MemoryStream();
        var buffer = new byte[64 << 10];
        int count;
        while ((count = await body.ReadAsync(buffer, stop).ConfigureAwait(false)) > 0)
        {
            if (whole.Length + count > LargestDocument)
                throw new UserFault(
                    $"{response.Url.Host} answers a question with more than an answer can be.",
                    found: $"more than {LargestDocument >> 20} MiB",
                    next: "use another source"
                )
                {
                    Failed = true,
                };
            whole.Write(buffer, 0, count);
        }
        return whole.ToArray();
    }

    private Exception Refusal(HubResponse response, Login? login, bool redirected)
    {
        var (code, host) = ((int)response.Status, response.Url.Host);
        if (TransientException.IsStatus(code))
        {
            var wait = response.Message.Headers.RetryAfter is not { } after
                ? null
                : after.Delta ?? (after.Date is { } date ? date - clock.GetUtcNow() : (TimeSpan?)null);
            return wait > longestWait
                ? new UserFault(
                    $"{host} asks to be left alone for {wait.Value.TotalMinutes:N0} minutes.",
                    found: $"HTTP {code}",
                    next: "run the same command again later; what was fetched is kept"
                )
                {
                    Failed = true,
                }
                : new TransientException($"HTTP {code}", wait > TimeSpan.Zero ? wait : null);
        }
        if (code is 401 or 403)
        {
            if (redirected)
                // the hub was willing: it signs a new address for the next attempt
                return new TransientException($"HTTP {code} from storage");
            return new UserFault(
                $"{host} does not give this file{(login is null ? " without a token" : " to this token")}.",
                found: $"HTTP {code} {response.Header("X-Error-Message")}".TrimEnd(),
                next: "a private or gated model needs a token that may read it: set HF_TOKEN "
                    + "(MODELSCOPE_API_TOKEN, AZURE_STORAGE_SAS_TOKEN)"
            )
            {
                Failed = true,
            };
        }
        return new UserFault(
            $"{host} refuses.",
            found: $"HTTP {code} {response.Header("X-Error-Message")}".TrimEnd(),
            next: "check the address of the model"
        )
        {
            Failed = code is not (404 or 410),
        };
    }

    private ResiliencePipeline Pipeline(string host) =>
        new ResiliencePipelineBuilder { TimeProvider = clock }
            .AddRetry(
                new RetryStrategyOptions
                {
                    ShouldHandle = new PredicateBuilder().Handle<Exception>(IsTransient),
                    MaxRetryAttempts = settings.Attempts,
                    BackoffType = DelayBackoffType.Exponential,
                    UseJitter = true,
                    Randomizer = random,
                    Delay = TimeSpan.FromSeconds(0.5),
                    MaxDelay = TimeSpan.FromSeconds(30),
                    DelayGenerator = arguments =>
                        new(
                            arguments.Outcome.Exception switch
                            {
                                // not all at the same instant
                                TransientException fault => fault.RetryAfter + TimeSpan.FromSeconds(random()),
                                BrokenCircuitException broken => broken.RetryAfter,
                                _ => null, // the backoff above
                            }
                        ),
                    OnRetry = arguments =>
                    {
                        Retrying?.Invoke(
                            $"{host}: {Reason(arguments.Outcome.Exception!)}; again in "
                                + $"{arguments.RetryDelay.TotalSeconds:F1} s"
                        );
                        return default;
                    },
                }
            )
            .AddCircuitBreaker(
                new CircuitBreakerStrategyOptions
                {
                    ShouldHandle = new PredicateBuilder().Handle<Exception>(IsTransient),
                    FailureRatio = 0.8,
                    MinimumThroughput = 24,
                    SamplingDuration = TimeSpan.FromSeconds(30),
                    BreakDuration = TimeSpan.FromSeconds(10),
                }
            )
            .Build();
}
