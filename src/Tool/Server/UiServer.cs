using System.Net;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Memopt.Tool.Server;

/// <summary>The web server behind <c>ui</c>: what may reach it, then what it answers. It reads no settings of its own
/// from files or the environment, since the folder it is started in may hold those of another web program.
/// </summary>
internal static class UiServer
{
    public static WebApplication Build(UiOptions options)
    {
        if (!IPAddress.IsLoopback(options.Address) && options.Token is null)
            throw new ArgumentException("a server that others can reach needs a token", nameof(options));
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder
            .WebHost.UseKestrelCore()
            .ConfigureKestrel(kestrel =>
            {
                kestrel.AddServerHeader = false;
                kestrel.Listen(options.Address, options.Port);
            });
        // Results go to standard output, so what goes wrong does not. A port that is taken is the command's to tell.
        builder
            .Logging.AddConsole(console => console.LogToStandardErrorThreshold = LogLevel.Trace)
            .SetMinimumLevel(LogLevel.Error)
            .AddFilter("Microsoft.Extensions.Hosting", LogLevel.None);
        builder.Services.AddRoutingCore();
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = TimeSpan.FromSeconds(1));
        var app = builder.Build();
        app.Use(
            (context, next) =>
            {
                // What can be got can be asked for by HEAD; Kestrel leaves the body out by itself.
                if (HttpMethods.IsHead(context.Request.Method))
                    context.Request.Method = HttpMethods.Get;
                return Guard(options, context, next);
            }
        );
        app.UseRouting();
        Page.Map(app, options);
        Memopt.Tool.Server.Mlflow.MlflowApi.Map(app, options.Store, options.Artifacts);
        return app;
    }

    /// <summary>A token that cannot be guessed: 256 bits.</summary>
    public static string NewToken() => Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));

    /// <summary>Lets a request through when it was meant for this server, by someone who may. A page of another site
    /// can make a browser send requests here, or have its own name resolve to this address: the first says so in Origin
    /// or Sec-Fetch-Site, the second in Host.
    /// </summary>
    private static Task Guard(UiOptions options, HttpContext context, RequestDelegate next)
    {
        var (request, response) = (context.Request, context.Response);
        var headers = response.Headers;
        headers.ContentSecurityPolicy =
            "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        headers.XContentTypeOptions = "nosniff";
        headers.XFrameOptions = "DENY";
        headers["Referrer-Policy"] = "no-referrer";
        headers["Cross-Origin-Opener-Policy"] = headers["Cross-Origin-Resource-Policy"] = "same-origin";
        headers.CacheControl = "no-store";
        if (IPAddress.IsLoopback(options.Address) && !IsHere(request.Host, context.Connection.LocalPort))
            return Refuse(
                StatusCodes.Status421MisdirectedRequest,
                $"This is 127.0.0.1:{context.Connection.LocalPort}, not {request.Host}. Through a tunnel, forward "
                    + "the same port."
            );
        // A link to the page may stand anywhere; nothing else is another site's to ask for.
        if (IsForeign(request) && !(HttpMethods.IsGet(request.Method) && request.Path == "/"))
            return Refuse(StatusCodes.Status403Forbidden, "Another site may not ask this.");
        if (options.Token is not { } token)
            return next(context);
        // Cookies of one host are shared by its ports.
        var cookie = $"memopt-{context.Connection.LocalPort}";
        if (
            HttpMethods.IsGet(request.Method)
            && request.Path == "/"
            && request.Query.TryGetValue("token", out var given)
            && Same(given, token)
        )
        {
            response.Cookies.Append(
                cookie,
                token,
                new CookieOptions
                {
                    HttpOnly = true,
                    SameSite = SameSiteMode.Strict,
                    IsEssential = true,
                }
            );
            response.Redirect("/");
            return Task.CompletedTask;
        }
        const string bearer = "Bearer ";
        var shown =
            request.Headers.Authorization.ToString() is var authorization
            && authorization.StartsWith(bearer, StringComparison.OrdinalIgnoreCase)
                ? authorization[bearer.Length..]
                : request.Cookies[cookie];
        return Same(shown, token)
            ? next(context)
            : Refuse(
                StatusCodes.Status401Unauthorized,
                "Open the address that dotnet memopt ui printed, with its token; a program sends it as "
                    + "Authorization: Bearer."
            );

        Task Refuse(int status, string why)
        {
            response.StatusCode = status;
            response.ContentType = "text/plain; charset=utf-8";
            return response.WriteAsync(why);
        }
    }

    private static bool IsHere(HostString host, int port) =>
        (host.Port ?? 80) == port
        && (
            host.Host.Equals("localhost", StringComparison.OrdinalIgnoreCase)
            || (IPAddress.TryParse(host.Host, out var address) && IPAddress.IsLoopback(address))
        );

    /// <summary>Whether a page of another origin asks. Programs send neither header.</summary>
    private static bool IsForeign(HttpRequest request) =>
        (
            request.Headers.Origin.ToString() is { Length: > 0 } origin
            && !origin.Equals($"{request.Scheme}://{request.Host}", StringComparison.OrdinalIgnoreCase)
        ) || request.Headers["Sec-Fetch-Site"].ToString() is not ("" or "same-origin" or "none");

    /// <summary>In a time that does not tell how much of it was right.</summary>
    private static bool Same(string? given, string token) =>
        given is not null
        && CryptographicOperations.FixedTimeEquals(
            SHA256.HashData(Encoding.UTF8.GetBytes(given)),
            SHA256.HashData(Encoding.UTF8.GetBytes(token))
        );
}
