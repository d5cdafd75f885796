using Memopt.Tracking.Tests;

namespace Memopt.Tool.Tests;

/// <summary>The commands on artifacts, and a training that sends its adapter to a storage account.</summary>
public sealed class ArtifactsTests : IDisposable
{
    private const string variable = "AZURE_STORAGE_CONNECTION_STRING";

    [Fact]
    public void A_training_keeps_its_adapter_and_sync_sends_it()
    {
        using var azurite = new Azurite();
        var folder = Cli.Workshop();
        var place = $"tracking.artifacts={Azurite.Place}";
        Environment.SetEnvironmentVariable(variable, azurite.ConnectionWith(Convert.ToBase64String(new byte[64])));
        var run = Cli.Run(folder, "run", "--json", "--set", place, "--set", "train.steps=4");
        Assert.True(run.Exit == 0, run.Error);
        Assert.Contains("the key or signature is refused", run.Error);
        Assert.Contains("The adapter is stored here only.", run.Error);
        var hash = (string)Cli.Run(folder, "runs", "show", (string)run.Json["runId"]!, "--json").Json["artifacts"]![0]!["hash"]!;
        var refused = Cli.Run(folder, "artifacts", "sync", "--at", $"{Azurite.Place}", "--json");
        Assert.Equal(1, refused.Exit);
        Assert.Contains("AZURE_STORAGE", (string)refused.Json["error"]!["next"]!);

        Environment.SetEnvironmentVariable(variable, azurite.Connection);
        Assert.False((bool)Cli.Run(folder, "artifacts", "ls", "--at", $"{Azurite.Place}", "--json").Json[0]!["uploaded"]!);
        Assert.Contains("not uploaded yet", Cli.Run(folder, "artifacts", "verify", "--at", $"{Azurite.Place}").Output);
        Assert.Equal(hash, (string?)Cli.Run(folder, "artifacts", "sync", "--at", $"{Azurite.Place}", "--json").Json["uploaded"]![0]);
        Assert.Contains("0 artifacts uploaded", Cli.Run(folder, "artifacts", "sync", "--at", $"{Azurite.Place}").Output);
        Assert.Contains("1 artifacts checked, 0 problems", Cli.Run(folder, "artifacts", "verify", "--at", $"{Azurite.Place}").Output);

        // Elsewhere, by a config that names the account.
        var elsewhere = Cli.Workshop($$"""{ "tracking": { "artifacts": "{{Azurite.Place}}" } }""");
        Assert.Equal(0, Cli.Run(elsewhere, "artifacts", "get", hash[..8], "--out", "got").Exit);
        Assert.Equal(File.ReadAllBytes(Path.Combine(folder, ".memopt/memopt/adapter/adapter_model.safetensors")), File.ReadAllBytes(Path.Combine(elsewhere, "got/adapter_model.safetensors")));
        var again = Cli.Run(elsewhere, "artifacts", "put", "got", "--json").Json;
        Assert.Equal((hash, 0), ((string)again["hash"]!, (int)again["sent"]!["blocks"]!));
        Assert.Contains("here, uploaded", Cli.Run(elsewhere, "artifacts", "ls").Output);
    }

    [Fact]
    public void A_folder_of_artifacts_needs_no_account()
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

        var stored = Directory.EnumerateFiles(Path.Combine(folder, ".memopt/artifacts/objects"), "*", SearchOption.AllDirectories).Single();
        File.WriteAllText(stored, "b");
        var verified = Cli.Run(folder, "artifacts", "verify", "--json");
        Assert.Equal((1, 1), (verified.Exit, verified.Json["problems"]!.AsArray().Count));
    }

    public void Dispose() => Environment.SetEnvironmentVariable(variable, null);
}
