using System.Diagnostics;
using System.IO.Compression;
using System.Text;
using Memopt.Hub.Tests;

namespace Memopt.Tool.Tests;

/// <summary>A secret is put into every place that has one; then everything that was written and printed is searched for
/// it.</summary>
public sealed class PlantedSecretsTests : IDisposable
{
    private readonly HubServer server = new();
    private readonly string folder;
    private readonly StringBuilder said = new();
    private readonly List<string> planted = [];

    public PlantedSecretsTests()
    {
        foreach (var file in Directory.EnumerateFiles(Path.Combine(Cli.Repository, "samples", "word-class", "model")))
            server.Files[Path.GetFileName(file)] = new(
                File.ReadAllBytes(file),
                Large: file.EndsWith(".safetensors", StringComparison.Ordinal)
            );
        folder = Cli.NewProject(Config(Plant()));
    }

    public void Dispose()
    {
        server.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public void Secrets_in_every_setting_are_never_written_or_printed_and_a_new_signature_resumes()
    {
        File.WriteAllText(
            Path.Combine(folder, "plan.py"),
            $"API_KEY = '{Plant()}'\nurl = \"https://h/m?sig={Plant()}&x=1\"\n"
        );
        File.WriteAllText(Path.Combine(folder, ".gitignore"), "memopt.json\nsweep.json\nhome/\n");
        foreach (
            var arguments in new[]
            {
                "init -q",
                "add .gitignore",
                "-c user.name=a -c user.email=a@example.org commit -qm first",
            }
        )
        {
            using var git = Process.Start(new ProcessStartInfo("git", arguments) { WorkingDirectory = folder })!;
            git.WaitForExit();
        }
        var run = Memopt(
            "run",
            "--set",
            $"tracking.tags.client_secret=\"{Plant()}\"",
            "--set",
            $"tracking.tags.note=\"hf_{Plant()}\"",
            "--json"
        );
        Assert.True(run.Exit == 0, run.Error);
        var id = (string)run.Json["runId"]!;
        foreach (
            var command in new[]
            {
                $"runs show {id}",
                $"runs show {id} --json",
                "runs list --json --columns params.model.source,params.tracking.tags",
                "config check",
                "config check --json",
                "plan --gpu H100",
                "runs backup out.zip",
            }
        )
            Assert.NotEqual("", Memopt(command.Split(' ')) is { Exit: 0 } done ? done.Output + done.Error : "");

        // Without the store the checkpoint is one of a run that has not ended; the address is signed anew.
        Directory.Delete(Path.Combine(folder, ".memopt", "store"), recursive: true);
        File.WriteAllText(Path.Combine(folder, "memopt.json"), Config(Plant()));
        var resumed = Memopt("run");
        Assert.True(resumed.Exit == 0, resumed.Error);
        Assert.Contains($"run {id} goes on after step 2 of 2", resumed.Error);

        File.WriteAllText(
            Path.Combine(folder, "sweep.json"),
            $$"""
            { "config": "memopt.json", "metric": "loss", "parameters": { "train.steps": [1], "tracking.tags.api_key": ["{{Plant()}}"] } }
            """
        );
        Assert.Equal(0, Memopt("sweep", "sweep.json").Exit);
        Memopt("sweep", "sweep.json", "--list", "--json");
        foreach (
            var wrong in new[]
            {
                $"model.source=https://me:{Plant()}@h/m",
                $"model.source=http://127.0.0.1:1/m?token={Plant()}",
                $"data.train=https://h/d.jsonl?X-Amz-Signature={Plant()}",
                $"tracking.artifacts=az://AccountKey={Plant()};x",
            }
        )
            Assert.NotEqual(0, Memopt("run", "--offline", "--set", wrong).Exit);
        Assert.NotEqual(
            0,
            Memopt(
                "run",
                "--json",
                "--set",
                $"model.source=https://h/m?code={Plant()}",
                "--set",
                $"adapter.rank=1&key={Plant()}",
                "--offline"
            ).Exit
        );

        var found = Written()
            .Append(("what was printed", said.ToString()))
            .SelectMany(text =>
                planted
                    .Where(secret => text.Item2.Contains(secret, StringComparison.Ordinal))
                    .Select(secret => $"{secret} in {text.Item1}")
            );
        Assert.Empty(found);
        Assert.Contains("[redacted]", said.ToString());
        Assert.Contains(
            $"\"{server.Url}files\"",
            File.ReadAllText(Path.Combine(folder, ".memopt", "memopt", "adapter", "adapter_config.json"))
        );
    }

    /// <summary>A secret that nothing escapes, so that it is found however the text around it is.</summary>
    private string Plant()
    {
        planted.Add(
            $"pLaNt{planted.Count:D2}x"
                + $"{Convert.ToHexStringLower(System.Security.Cryptography.RandomNumberGenerator.GetBytes(10))}"
        );
        return planted[^1];
    }

    private string Config(string signature) =>
        $$"""
            {
              "model": { "source": "{{server.Url}}files?sv=2024-01-01&se=2030-01-01&sig={{signature}}%2Babc%3D" },
              "data": { "train": "train.jsonl", "maxLength": 64 },
              "adapter": { "rank": 4 },
              "train": { "steps": 2, "batchSize": 2 },
              "checkpoint": { "every": 1 },
              "tracking": { "tensorboard": "board", "tags": { "api_key": "{{Plant()}}", "proxy": "http://me:{{Plant()}}@proxy:80", "place": "AccountName=a;AccountKey={{Plant()}};b",
                "address": "https%3A%2F%2Fh%2Fm%3Fsig%3D{{Plant()}}%26x", "head": "Authorization: Bearer {{Plant()}}", "deep": "{\"a\":[{\"password\":\"{{Plant()}}\"}]}" } }
            }
            """;

    private IEnumerable<(string, string)> Written()
    {
        string[] given = ["memopt.json", "sweep.json", "plan.py"];
        foreach (
            var file in Directory
                .EnumerateFiles(folder, "*", SearchOption.AllDirectories)
                .Where(file => !given.Contains(Path.GetRelativePath(folder, file)))
        )
        {
            var bytes = File.ReadAllBytes(file);
            if (bytes is [(byte)'P', (byte)'K', ..])
            {
                using var zip = new ZipArchive(new MemoryStream(bytes));
                foreach (var entry in zip.Entries)
                {
                    using var text = new StreamReader(entry.Open(), Encoding.Latin1);
                    yield return ($"{entry.FullName} of {file}", text.ReadToEnd());
                }
            }
            yield return (file, Encoding.Latin1.GetString(bytes));
            yield return (file + " (its name)", file);
        }
    }

    private Outcome Memopt(params string[] arguments)
    {
        var start = Cli.Command(folder, arguments);
        var packages =
            Environment.GetEnvironmentVariable("NUGET_PACKAGES")
            ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".nuget", "packages");
        foreach (
            var (name, value) in new[]
            {
                ("NUGET_PACKAGES", packages),
                ("XDG_CACHE_HOME", Path.Combine(folder, "home")),
                ("HF_HOME", Path.Combine(folder, "home", "hf")),
                ("HF_TOKEN", "hf_" + Plant()),
                ("MEMOPT_API_KEY", Plant()),
            }
        )
            start.Environment[name] = value;
        using var process = Process.Start(start)!;
        var outcome = Cli.Wait(process);
        said.AppendLine(outcome.Output).AppendLine(outcome.Error);
        return outcome;
    }
}
