using System.Net;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Http;

namespace Memopt.Tool.Server;

/// <summary>Lets a request through when it was meant for this server, by someone who may. A page of another site can
/// make a browser send requests here, or have its own name resolve to this address: the first says so in Origin or
/// Sec-Fetch-Site, the second in Host.
/// </summary>
internal sealed class RequestGuard(UiOptions options)
{
    public Task Admit(HttpContext context, RequestDelegate next)
    {
        Protect(context.Response.Headers);
        var (request, port) = (context.Request, context.Connection.LocalPort);
        if (IPAddress.IsLoopback(options.Address) && !IsHere(request.Host, port))
            return Refuse(
                context.Response,
                StatusCodes.Status421MisdirectedRequest,
                $"This is 127.0.0.1:{port}, not {request.Host}. Through a tunnel, forward the same port."
            );
        // A link to the page may stand anywhere; nothing else is another site's to ask for.
        if (IsForeign(request) && !IsPage(request))
            return Refuse(context.Response, StatusCodes.Status403Forbidden, "Another site may not ask this.");
        if (options.Token is not { } token)
            return next(context);
        if (IsPage(request) && request.Query.TryGetValue("token", out var given) && Same(given, token))
            return SignIn(context, token);
        return Same(Shown(context), token)
            ? next(context)
            : Refuse(
                context.Response,
                StatusCodes.Status401Unauthorized,
                "Open the address that dotnet memopt ui printed, with its token; a program sends it as "
                    + "Authorization: Bearer."
            );
    }

    /// <summary>Tells browsers to load nothing from elsewhere and to show the page within no other.</summary>
    private static void Protect(IHeaderDictionary headers)
    {
        headers.ContentSecurityPolicy =
            "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        headers.XContentTypeOptions = "nosniff";
        headers.XFrameOptions = "DENY";
        headers["Referrer-Policy"] = "no-referrer";
        headers["Cross-Origin-Opener-Policy"] = headers["Cross-Origin-Resource-Policy"] = "same-origin";
        headers.CacheControl = "no-store";
    }

    private static bool IsPage(HttpRequest request) => HttpMethods.IsGet(request.Method) && request.Path == "/";

    /// <summary>Keeps the token in a cookie and out of the address.</summary>
    private static Task SignIn(HttpContext context, string token)
    {
        context.Response.Cookies.Append(
            Cookie(context),
            token,
            new CookieOptions
            {
                HttpOnly = true,
                SameSite = SameSiteMode.Strict,
                IsEssential = true,
            }
        );
        context.Response.Redirect("/");
        return Task.CompletedTask;
    }

    /// <summary>The token that a request shows: a program's in its header, a browser's in its cookie.</summary>
    private static string? Shown(HttpContext context)
    {
        const string bearer = "Bearer ";
        return
            context.Request.Headers.Authorization.ToString() is var authorization
            && authorization.StartsWith(bearer, StringComparison.OrdinalIgnoreCase)
            ? authorization[bearer.Length..]
            : context.Request.Cookies[Cookie(context)];
    }

    // Cookies of one host are shared by its ports.
    private static string Cookie(HttpContext context) => $"memopt-{context.Connection.LocalPort}";

    private static Task Refuse(HttpResponse response, int status, string why)
    {
        response.StatusCode = status;
        response.ContentType = "text/plain; charset=utf-8";
        return response.WriteAsync(why);
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
