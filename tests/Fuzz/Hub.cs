using System.Text;
using Memopt.Hub;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace Memopt.Fuzz;

/// <summary>A hub whose every answer is the input: the part before a zero byte is a header.</summary>
internal static class Hub
{
    private static readonly Lazy<Uri> address = new(Start);
    private static byte[] body = [];
    private static string link = "";

    public static void Ask(byte[] input, string folder)
    {
        var at = Array.IndexOf(input, (byte)0);
        (link, body) =
            at > 0
                ? (
                    new string([
                        .. Encoding.Latin1.GetString(input, 0, at).Where(unit => unit is >= ' ' and < '\u007f'),
                    ]),
                    input[(at + 1)..]
                )
                : ("", input);
        var settings = new HubSettings
        {
            Endpoint = address.Value,
            ModelScope = address.Value,
            HubCache = folder,
            OwnCache = folder,
            Program = folder,
            Attempts = 1,
        };
        using var http = new HubHttp(settings, TimeProvider.System, () => 0);
        foreach (
            var hub in new IRemote[] { new HuggingFace("a/b", settings, http), new ModelScope("a/b", settings, http) }
        )
        {
            try
            {
                foreach (var name in hub.ListAsync("main", CancellationToken.None).GetAwaiter().GetResult().Files.Keys)
                    ModelFiles.Safe(name);
            }
            catch (Memopt.Core.UserFault) when (hub is HuggingFace)
            {
                // the other may take it
            }
        }
    }

    private static Uri Start()
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.Listen(System.Net.IPAddress.Loopback, 0));
        var app = builder.Build();
        app.Run(async context =>
        {
            if (link.Length > 0)
                context.Response.Headers.Link = link;
            await context.Response.Body.WriteAsync(body);
        });
        app.StartAsync().GetAwaiter().GetResult();
        return new(app.Urls.First() + "/");
    }
}
