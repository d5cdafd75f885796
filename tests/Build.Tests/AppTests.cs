using System.Text.Json.Nodes;

namespace Memopt.Build.Tests;

/// <summary>What a program's author gets: apps that have the packages and nothing else of ours.</summary>
public sealed class AppTests(Packages packages) : IClassFixture<Packages>
{
    [Fact]
    public void App_from_the_template_trains_once_and_matches_the_tool()
    {
        // In a repository that keeps versions in one place.
        var folder = packages.Empty("an app");
        File.WriteAllText(
            Path.Combine(folder, "Directory.Packages.props"),
            "<Project><PropertyGroup><ManagePackageVersionsCentrally>true</ManagePackageVersionsCentrally></PropertyGroup></Project>"
        );
        var app = packages.New(folder, "memopt-app", "Critic", "--rank", "4");
        Assert.Contains("0 Warning(s)", Packages.Dotnet(app, "build"));
        var first = Packages.Dotnet(app, "run", "--no-build");
        Assert.Contains("step 20 of 20, loss ", first);
        Assert.Contains(": trained, accuracy 100 %, first_letter 1.00", first);
        Assert.Contains("The journey was superb: praise", first);
        var second = Packages.Dotnet(app, "run", "--no-build");
        Assert.DoesNotContain("step ", second);
        Assert.Contains(": trained before, accuracy 100 %, first_letter 1.00", second);
        Assert.Contains("The journey was superb: praise", second);

        // The tool finds in the rows that the app wrote what the app trained on, and its metric in the record.
        Packages.Dotnet(app, "run", "--no-build", "--", "rows");
        Packages.Dotnet(app, "tool", "restore");
        Assert.True((bool)JsonNode.Parse(Packages.Dotnet(app, "memopt", "run", "--json"))!["upToDate"]!);
        var runs = JsonNode
            .Parse(
                Packages.Dotnet(
                    app,
                    "memopt",
                    "runs",
                    "list",
                    "--json",
                    "--filter",
                    "experiment = 'Critic' and metrics.eval_first_letter = 1 and params.adapter.rank = 4"
                )
            )!
            .AsArray();
        Assert.Contains((string)Assert.Single(runs)!["runId"]!, first);

        // Another build puts the adapter beside the dll.
        Packages.Dotnet(app, "build");
        Assert.True(
            File.Exists(Path.Combine(app, "bin", "Debug", "net10.0", "adapters", "Critic", "adapter_model.safetensors"))
        );
    }

    [Fact]
    public void App_that_references_a_fine_tune_has_the_adapter_beside_its_dll_and_answers()
    {
        var folder = packages.Empty("a fine-tune and an app");
        var tune = packages.New(folder, "memopt-qlora", "WordClass");
        var config = Path.Combine(tune, "memopt.json");
        File.WriteAllText(
            config,
            File.ReadAllText(config)
                .Replace("\"epochs\": 3", "\"steps\": 40")
                .Replace("\"batchSize\": 16", "\"batchSize\": 4")
        );
        var app = Path.Combine(folder, "Asker");
        Packages.Dotnet(folder, "new", "console", "-o", app);
        File.WriteAllText(
            Path.Combine(app, "Program.cs"),
            """
            using Memopt;
            using Microsoft.Extensions.AI;

            using IChatClient client = TextGenerator.Load(Adapters.Load("WordClass"));
            await foreach (var update in client.GetStreamingResponseAsync("What part of speech is \"chub\"?"))
                Console.Write(update);
            """
        );
        var project = Path.Combine(app, "Asker.csproj");
        File.WriteAllText(
            project,
            File.ReadAllText(project)
                .Replace(
                    "</Project>",
                    $"""
                      <ItemGroup>
                        <PackageReference Include="Memopt.Trainer" Version="{packages.Version}" />
                        <PackageReference Include="libtorch-cpu-linux-x64" Version="2.10.0" ExcludeAssets="all" />
                        <ProjectReference Include="../WordClass/WordClass.csproj" />
                      </ItemGroup>
                    </Project>
                    """
                )
        );
        Assert.Contains("0 Warning(s)", Packages.Dotnet(app, "build"));
        var output = Path.Combine(app, "bin", "Debug", "net10.0");
        Assert.True(File.Exists(Path.Combine(output, "adapters", "WordClass", "adapter_model.safetensors")));
        Assert.True(File.Exists(Path.Combine(output, "models", "nano", "model.safetensors")));
        Assert.Contains(
            Packages.Dotnet(app, "run", "--no-build").Trim(),
            new[] { "noun", "verb", "adjective", "adverb" }
        );

        // The nano model stays away when it is not wanted.
        Assert.Contains("models/nano/model.safetensors", Packages.Dotnet(app, "msbuild", "-getItem:None"));
        Assert.DoesNotContain(
            "models/nano/model.safetensors",
            Packages.Dotnet(app, "msbuild", "-getItem:None", "-p:MemoptNano=false")
        );
    }
}
