using System.Diagnostics;
using Memopt.Hub;
using Memopt.Hub.Tests;

namespace Memopt.Tool.Tests;

/// <summary>Models by name in the commands: pull, cache, and the same inside run.</summary>
public sealed class PullTests : IDisposable
{
    private readonly HubServer server = new();
    private readonly string folder = Cli.NewProject(
        """
        {
          "model": { "source": "org/model" },
          "data": { "train": "train.jsonl", "maxLength": 64 },
          "train": { "steps": 2, "batchSize": 2 }
        }
        """
    );

    public PullTests()
    {
        foreach (var file in Directory.EnumerateFiles(Path.Combine(Cli.Repository, "samples", "word-class", "model")))
            server.Files[Path.GetFileName(file)] = new(
                File.ReadAllBytes(file),
                Large: file.EndsWith(".safetensors", StringComparison.Ordinal)
            );
    }

    public void Dispose()
    {
        server.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public void Run_downloads_its_model_and_records_the_commit()
    {
        var faults = 1;
        server.Spoil = _ => Interlocked.Decrement(ref faults) >= 0 ? new(FaultKind.Status503) : null;
        var run = Memopt("run", "--json");
        Assert.True(run.Exit == 0, run.Error);
        Assert.Contains($"org/model at {HubServer.Commit}", run.Error);
        var shown = Cli.Run(folder, "runs", "show", (string)run.Json["runId"]!, "--json").Json;
        Assert.Contains(
            shown["events"]!.AsArray(),
            happened => (string?)happened!["kind"] == "download" && ((string)happened["text"]!).Contains("503")
        );
        var facts = shown["environment"]!;
        Assert.Equal(("org/model", HubServer.Commit), ((string?)facts["model.source"], (string?)facts["model.commit"]));
        Assert.Equal(
            "sha256:" + server.Files["model.safetensors"].Sha256,
            (string?)facts["model.files.model.safetensors"]
        );
        // Made again it takes that commit, wherever the branch is by now.
        server.Head = new string('f', 40);
        var again = Memopt("run", "--from-run", (string)run.Json["runId"]!, "--json");
        Assert.Contains($"org/model at {HubServer.Commit}", again.Error);
        Assert.Contains("are those of run", again.Error);
        // It is here now: without the server the same run knows that it is done.
        server.Dispose();
        var offline = Memopt("run", "--json", "--offline");
        Assert.True(offline.Exit == 0, offline.Error);
        Assert.True((bool)offline.Json["upToDate"]!);
    }

    [Fact]
    public void Pull_prints_the_folder_and_cache_lists_verifies_and_removes_it()
    {
        var pulled = Memopt("pull", "org/model", "--json");
        Assert.True(pulled.Exit == 0, pulled.Error);
        Assert.Equal(HubServer.Commit, (string?)pulled.Json["commit"]);
        Assert.Equal((string?)pulled.Json["folder"], Memopt("pull", "org/model").Output.Trim());
        Assert.Equal("org/model", (string?)Memopt("cache", "ls", "--json").Json[0]!["name"]);
        Assert.Contains("org/model", Memopt("cache", "ls").Output);
        Assert.Equal(0, (int)Memopt("cache", "verify", "--json").Json["damaged"]!.AsArray().Count);
        File.AppendAllText(Path.Combine((string)pulled.Json["folder"]!, "model.safetensors"), "x");
        var damaged = Memopt("cache", "verify", "org/model");
        Assert.Equal(1, damaged.Exit);
        Assert.Contains("dotnet memopt pull org/model", damaged.Output);
        Assert.Equal(
            server.Files["model.safetensors"].Bytes.Length,
            (long)Memopt("pull", "org/model", "--json").Json["fetchedBytes"]!
        );
        Assert.Equal(0, Memopt("cache", "rm", "org/model").Exit);
        Assert.Empty(Memopt("cache", "ls", "--json").Json.AsArray());
    }

    [Fact]
    public void Pull_that_fails_names_what_to_do()
    {
        Assert.Contains("model.revision", Memopt("pull", "org/model", "--revision", "nosuch").Error);
        Assert.Contains("no model \"org/other\"", Memopt("pull", "org/other").Error);
        Assert.Contains("without --offline", Memopt("pull", "org/model", "--offline").Error);
        Assert.Contains("AZURE_STORAGE_SAS_TOKEN", Memopt("pull", "az://account/container").Error);
        server.Token = "hf_secret";
        var refused = Memopt("pull", "org/model", "--json");
        Assert.Equal(1, refused.Exit);
        Assert.Contains("HF_TOKEN", (string?)refused.Json["error"]!["next"]);
        File.WriteAllText(Path.Combine(folder, "token"), "hf_secret\n");
        Assert.Equal(0, Memopt("pull", "org/model").Exit); // as Hugging Face's login leaves it in HF_HOME
    }

    [Fact]
    public void Pull_interrupted_keeps_the_bytes_received()
    {
        const int size = 8 << 20;
        var weights = new Served(new byte[size], Large: true);
        server.Files["model.safetensors"] = weights;
        server.Most = 4 << 20;
        using var pull = Start("pull", "org/model", "--json");
        while (
            PartFile.Stored(
                Path.Combine(folder, "hub", "models--org--model", "blobs", weights.ETag + ".part"),
                weights.ETag,
                size
            )
            < 2 << 20
        )
            Assert.False(pull.WaitForExit(20));
        Cli.Interrupt(pull);
        Assert.Equal(130, Cli.Wait(pull).Exit);
        server.Most = long.MaxValue;
        var rest = Memopt("pull", "org/model", "--json");
        Assert.InRange((long)rest.Json["resumedBytes"]!, 2 << 20, 8 << 20);
        Assert.Contains("resumed", rest.Error);
    }

    private Outcome Memopt(params string[] arguments)
    {
        using var process = Start(arguments);
        return Cli.Wait(process);
    }

    private Process Start(params string[] arguments)
    {
        var start = Cli.Command(folder, arguments);
        foreach (
            var name in new[]
            {
                "HF_TOKEN",
                "HF_TOKEN_PATH",
                "HF_HUB_CACHE",
                "HUGGINGFACE_HUB_CACHE",
                "HF_HUB_OFFLINE",
                "HUGGING_FACE_HUB_TOKEN",
                "AZURE_STORAGE_SAS_TOKEN",
                "AZURE_CLIENT_ID",
            }
        )
            start.Environment.Remove(name);
        start.Environment["HF_ENDPOINT"] = server.Url.ToString();
        // and none is set, so that no one is asked for a login
        start.Environment["AZURE_TOKEN_CREDENTIALS"] = "EnvironmentCredential";
        start.Environment["HF_HOME"] = folder;
        start.Environment["XDG_CACHE_HOME"] = Path.Combine(folder, "cache");
        return Process.Start(start)!;
    }
}
