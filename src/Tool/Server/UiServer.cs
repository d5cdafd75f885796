using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Memopt.Core;
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
    /// <summary>Builds a server and starts it.</summary>
    /// <exception cref="UserFault">The address cannot be listened on.</exception>
    public static async Task<WebApplication> Start(UiOptions options)
    {
        var app = Build(options);
        try
        {
            await app.StartAsync(CancellationToken.None);
            return app;
        }
        catch (Exception e) when (e is IOException or SocketException)
        {
            await app.DisposeAsync();
            throw new UserFault(
                $"{options.Address}:{options.Port} cannot be listened on.",
                found: (e.InnerException ?? e).Message,
                next: "dotnet memopt ui --port 0 takes a port that is free"
            )
            {
                Failed = true,
            };
        }
    }

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
        var guard = new RequestGuard(options);
        app.Use(
            (context, next) =>
            {
                // What can be got can be asked for by HEAD; Kestrel leaves the body out by itself.
                if (HttpMethods.IsHead(context.Request.Method))
                    context.Request.Method = HttpMethods.Get;
                return guard.Admit(context, next);
            }
        );
        app.UseRouting();
        Page.Map(app, options);
        Mlflow.MlflowApi.Map(app, options.Store, options.Artifacts);
        return app;
    }

    /// <summary>A token that cannot be guessed: 256 bits.</summary>
    public static string NewToken() => Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));
}
