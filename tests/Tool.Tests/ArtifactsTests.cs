using System.Diagnostics;
using Memopt.Tracking.Tests;

namespace Memopt.Tool.Tests;

/// <summary>The commands on artifacts, and a training that sends its adapter to a storage account.</summary>
public sealed class ArtifactsTests
{
    [Fact]
    public void Training_keeps_its_adapter_and_sync_sends_it()
    {
        using var azurite = new Azurite();
        var folder = Cli.NewProject();
        var place = $"tracking.artifacts={Azurite.Place}";
        Cli.Account = azurite.ConnectionWith(Convert.ToBase64String(new byte[64]));
        var run = Cli.Run(folder, "run", "--json", "--set", place, "--set", "train.steps=4");
        Assert.True(run.Exit == 0, run.Error);
        Assert.Contains("the key or signature is refused", run.Error);
        Assert.Contains("NOT in az://devstoreaccount1/artifacts/team/one: ", run.Error);
        Assert.Equal(3, run.Json["notUploaded"]!.AsArray().Count); // the adapter and two checkpoints
        var hash = (string)
            Cli.Run(folder, "runs", "show", (string)run.Json["runId"]!, "--json").Json["artifacts"]![0]!["hash"]!;
        var refused = Cli.Run(folder, "artifacts", "sync", "--at", $"{Azurite.Place}", "--json");
        Assert.Equal(1, refused.Exit);
        Assert.Contains("AZURE_STORAGE", (string)refused.Json["error"]!["next"]!);

        Cli.Account = azurite.Connection;
        Assert.False(
            (bool)Cli.Run(folder, "artifacts", "ls", "--at", $"{Azurite.Place}", "--json").Json[0]!["uploaded"]!
        );
        Assert.Contains("not uploaded yet", Cli.Run(folder, "artifacts", "verify", "--at", $"{Azurite.Place}").Output);
        var synced = Cli.Run(folder, "artifacts", "sync", "--at", $"{Azurite.Place}", "--json").Json[
            "uploaded"
        ]!.AsArray();
        Assert.Equal((3, hash), (synced.Count, (string?)synced[0]));
        var links = Cli.Run(folder, "runs", "show", (string)run.Json["runId"]!, "--json").Json["artifacts"]!.AsArray();
        Assert.Equal(
            ["adapter", "checkpoint-00000003", "checkpoint-00000004"],
            links.Select(link => (string?)link!["name"]).Order()
        );
        Assert.All(links, link => Assert.Equal($"{Azurite.Place}", (string?)link!["place"]));
        Assert.Contains(
            "0 artifacts uploaded",
            Cli.Run(folder, "artifacts", "sync", "--at", $"{Azurite.Place}").Output
        );
        Assert.Contains(
            "3 artifacts checked, 0 problems",
            Cli.Run(folder, "artifacts", "verify", "--at", $"{Azurite.Place}").Output
        );

        // Elsewhere, by a config that names the account.
        var elsewhere = Cli.NewProject($$"""{ "tracking": { "artifacts": "{{Azurite.Place}}" } }""");
        Assert.Equal(0, Cli.Run(elsewhere, "artifacts", "get", hash[..8], "--out", "got").Exit);
        Assert.Equal(
            File.ReadAllBytes(Path.Combine(folder, ".memopt/memopt/adapter/adapter_model.safetensors")),
            File.ReadAllBytes(Path.Combine(elsewhere, "got/adapter_model.safetensors"))
        );
        var again = Cli.Run(elsewhere, "artifacts", "put", "got", "--json").Json;
        Assert.Equal((hash, 0), ((string)again["hash"]!, (int)again["sent"]!["blocks"]!));
        Assert.Contains("here, uploaded", Cli.Run(elsewhere, "artifacts", "ls").Output);

        // What a run names stays; checkpoints of finished runs may go.
        var bound = Cli.Run(folder, "artifacts", "rm", hash[..8], "--at", $"{Azurite.Place}");
        Assert.Equal(1, bound.Exit);
        Assert.Contains($"is named by run {run.Json["runId"]} (adapter)", bound.Error);
        var would = Cli.Run(folder, "artifacts", "rm", "--checkpoints", "--dry-run", "--at", $"{Azurite.Place}");
        Assert.Contains("Would remove 2 artifacts,", would.Output);
        var gone = Cli.Run(folder, "artifacts", "rm", "--checkpoints", "--at", $"{Azurite.Place}", "--json");
        Assert.True((bool)gone.Json["applied"]!, gone.Error);
        Assert.Equal(
            [hash],
            Cli.Run(folder, "artifacts", "ls", "--at", $"{Azurite.Place}", "--json")
                .Json.AsArray()
                .Select(row => (string?)row!["hash"])
        );
        Assert.Contains(
            "0 artifacts uploaded",
            Cli.Run(folder, "artifacts", "sync", "--at", $"{Azurite.Place}").Output
        );
        Assert.Equal(0, Cli.Run(folder, "artifacts", "rm", hash, "--force", "--at", $"{Azurite.Place}").Exit);
        Assert.DoesNotContain(
            Cli.Run(elsewhere, "artifacts", "ls", "--json").Json.AsArray(),
            row => (bool?)row!["uploaded"] == true
        );
        Assert.Empty(Cli.Run(folder, "artifacts", "ls", "--json").Json.AsArray());
    }

    [Fact]
    public void Training_with_the_account_away_waits_until_interrupted_and_the_next_run_sends()
    {
        using var azurite = new Azurite();
        var folder = Cli.NewProject();
        Cli.Account = azurite.Connection;
        string[] run = ["run", "--json", "--set", $"tracking.artifacts={Azurite.Place}", "--set", "train.steps=10"];
        azurite.Saved(); // else the container may be gone when the server starts again
        azurite.Stop();
        using var process = Cli.Start(folder, run);
        var lines = new List<string>();
        // Whichever comes first: the end of a short training, or the first attempt's failure.
        while (
            !(
                lines.Exists(line => line.StartsWith("upload       3 still", StringComparison.Ordinal))
                && lines.Exists(line => line.Contains("cannot be reached") && line.Contains("tried again"))
            ) && process.StandardError.ReadLine() is { } line
        )
            lines.Add(line);
        Assert.False(process.HasExited, string.Join('\n', lines));
        Assert.Contains(lines, line => line.StartsWith("step 10 / 10", StringComparison.Ordinal));
        Cli.Interrupt(process);
        var stopped = Cli.Wait(process);
        Assert.Equal(130, stopped.Exit);
        Assert.Equal("finished", (string?)stopped.Json["status"]);
        Assert.Contains("artifacts sync", stopped.Error);
        Assert.Contains("NOT in az://", stopped.Error);

        azurite.Start();
        var again = Cli.Run(folder, run);
        Assert.True((bool)again.Json["upToDate"]!, again.Error);
        Assert.True(again.Json["notUploaded"]!.AsArray().Count == 0, again.Error);
        var shown = Cli.Run(folder, "runs", "show", (string)stopped.Json["runId"]!, "--json").Json;
        Assert.Equal("finished", (string?)shown["status"]);
        Assert.Contains("adapter", shown["artifacts"]!.AsArray().Select(link => (string?)link!["name"]));
        Assert.All(shown["artifacts"]!.AsArray(), link => Assert.Equal($"{Azurite.Place}", (string?)link!["place"]));
        // Checkpoints that checkpoint.keep had removed by then were not sent: of 3, 6, 9 and 10 the last two.
        Assert.Equal(
            ["adapter", "checkpoint-00000009", "checkpoint-00000010"],
            shown["artifacts"]!.AsArray().Select(link => (string?)link!["name"]).Order()
        );
        Assert.Equal(
            ["begins to fail", "sent", "sent", "sent"],
            shown["events"]!
                .AsArray()
                .Where(happened => (string?)happened!["kind"] == "upload")
                .Select(happened => (string)happened!["text"]!)
                .Select(text =>
                    text.Contains("cannot be reached") ? "begins to fail"
                    : text.Contains(" is in az://") ? "sent"
                    : text
                )
        );
    }

    [Fact]
    public void Artifacts_in_a_folder_need_no_account()
    {
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        File.WriteAllText(Path.Combine(folder, "a.txt"), "a");
        var hash = Cli.Run(folder, "artifacts", "put", "a.txt").Output.Trim();
        Assert.Equal(64, hash.Length);
        Assert.True((bool)Cli.Run(folder, "artifacts", "ls", "--json").Json[0]!["local"]!);
        Assert.Equal(0, Cli.Run(folder, "artifacts", "get", hash[..6], "--out", "back").Exit);
        Assert.Equal("a", File.ReadAllText(Path.Combine(folder, "back", "a.txt")));
        Assert.Contains("No storage account is named", Cli.Run(folder, "artifacts", "sync").Error);
        Assert.Contains("no artifact zz", Cli.Run(folder, "artifacts", "get", "zz", "--out", "x").Error);

        var stored = Directory
            .EnumerateFiles(Path.Combine(folder, ".memopt/artifacts/objects"), "*", SearchOption.AllDirectories)
            .Single();
        File.WriteAllText(stored, "b");
        var verified = Cli.Run(folder, "artifacts", "verify", "--json");
        Assert.Equal((1, 1), (verified.Exit, verified.Json["problems"]!.AsArray().Count));
    }
}
