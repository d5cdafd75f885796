using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using Azure.Storage.Blobs;

namespace Memopt.Tracking.Tests;

/// <summary>Azure's own test server in a process that can be killed and started again over the same data. It saves what
/// it knows every five seconds.</summary>
internal sealed partial class Azurite : IDisposable
{
    private const string key =
        // the one that all test servers have
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    private readonly string data = Directory.CreateTempSubdirectory("azurite").FullName;
    private static int next = Random.Shared.Next();
    private readonly int port = FreePort();
    private readonly List<string> log = [];
    private Process? process;

    public Azurite()
    {
        Start();
        Container.Create();
    }

    public static BlobLocation Place { get; } = BlobLocation.Parse("az://devstoreaccount1/artifacts/team/one");

    public int Port => port;

    public string Endpoint => EndpointAt(port);

    public string Connection => ConnectionWith(key);

    public BlobContainerClient Container =>
        new(Connection, Place.Container, new BlobClientOptions(BlobClientOptions.ServiceVersion.V2025_11_05));

    /// <summary>Blocks sent to the server, by its own log: those it took, and those that a kill of the client cut
    /// off.</summary>
    public int Blocks
    {
        get
        {
            lock (log)
                return log.Count(line =>
                    line.Contains("comp=block&", StringComparison.Ordinal)
                    && (
                        line.Contains("\" 201", StringComparison.Ordinal)
                        || line.Contains("\" - ", StringComparison.Ordinal)
                    )
                );
        }
    }

    public string ConnectionWith(string secret) =>
        $"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={secret};BlobEndpoint={Endpoint};";

    /// <summary>The connection by way of another port, where something stands before the server or nothing
    /// is.</summary>
    public string ConnectionAt(int other) =>
        $"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint="
        + $"{EndpointAt(other)};";

    private static string EndpointAt(int port) => $"http://127.0.0.1:{port}/devstoreaccount1";

    /// <summary>Waits until the server has saved what it acknowledged so far, which a kill then does not take: a mark
    /// made now, and where each block lies.</summary>
    public void Saved()
    {
        var mark = Guid.NewGuid().ToString("N");
        Container.SetMetadata(new Dictionary<string, string> { ["saved"] = mark });
        Wait.Until(() =>
        {
            var (blobs, extents) = (
                File.ReadAllText(Path.Combine(data, "__azurite_db_blob__.json")),
                File.ReadAllText(Path.Combine(data, "__azurite_db_blob_extent__.json"))
            );
            return blobs.Contains(mark, StringComparison.Ordinal)
                && Extents()
                    .Matches(blobs)
                    .All(extent => extents.Contains(extent.Groups[1].Value, StringComparison.Ordinal));
        });
    }

    [GeneratedRegex("\"persistency\":\\{\"id\":\"([0-9a-f-]{36})\"")]
    private static partial Regex Extents();

    public void Start()
    {
        var program = Path.Combine(
            Root(),
            "tests",
            "oracles",
            "node_modules",
            "azurite",
            "dist",
            "src",
            "blob",
            "main.js"
        );
        Assert.True(File.Exists(program), "Azurite is not installed: run 'npm ci --ignore-scripts' in tests/oracles.");
        process = Process.Start(
            new ProcessStartInfo(
                "node",
                [program, "--blobHost", "127.0.0.1", "--blobPort", $"{port}", "--location", data, "--disableTelemetry"]
            )
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        var begun = 0;
        lock (log)
            begun = log.Count;
        process.OutputDataReceived += (_, line) =>
        {
            lock (log)
            {
                log.Add(line.Data ?? "");
                Monitor.PulseAll(log);
            }
        };
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        if (Says("successfully listens", begun))
            return;
        Dispose();
        Assert.Fail("Azurite does not start");
    }

    /// <summary>Ends it in its own way, with all that it knows saved.</summary>
    public void Stop()
    {
        var begun = 0;
        lock (log)
            begun = log.Count;
        using (var kill = Process.Start("kill", ["-TERM", $"{process!.Id}"]))
            kill.WaitForExit();
        Says("successfully closed", begun);
        Kill();
    }

    public void Kill()
    {
        process?.Kill();
        process?.WaitForExit();
        process?.Dispose();
        process = null;
    }

    public void Dispose()
    {
        Kill();
        Directory.Delete(data, recursive: true);
    }

    /// <summary>Waits for a line of its log, from one on; false when it ends without.</summary>
    private bool Says(string text, int from)
    {
        lock (log)
        {
            for (
                var until = Environment.TickCount64 + (long)Wait.Patience.TotalMilliseconds;
                !log.Skip(from).Any(line => line.Contains(text, StringComparison.Ordinal));
                Monitor.Wait(log, 100)
            )
            {
                if (process!.HasExited || Environment.TickCount64 > until)
                    return false;
            }
            return true;
        }
    }

    /// <summary>A port that is free, of those that a system gives to nobody who takes any: it is still free when the
    /// server starts again.</summary>
    private static int FreePort()
    {
        while (true)
        {
            var port = 15_000 + (int)((uint)Interlocked.Increment(ref next) % 15_000);
            try
            {
                using var listener = new TcpListener(IPAddress.Loopback, port);
                listener.Start();
                return port;
            }
            catch (SocketException)
            {
                // Somebody has it.
            }
        }
    }

    private static string Root()
    {
        var folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "Tool.sln")))
            folder =
                Path.GetDirectoryName(folder)
                ?? throw new DirectoryNotFoundException("Tool.sln is not above the tests");
        return folder;
    }
}
