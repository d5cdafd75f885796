using System.IO.Compression;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using YamlDotNet.Serialization;

namespace Memopt.Build.Tests;

/// <summary>What <c>dotnet new</c> makes: every template with every value of its symbols, from the packed packages
/// alone.</summary>
public sealed partial class TemplateTests(Packages packages) : IClassFixture<Packages>
{
    private const string Check = "dotnet build -p:MemoptTrainOnBuild=false -p:MemoptBackend=none -warnaserror";
    private static readonly string[] projects = ["memopt-qlora", "memopt-lora", "memopt-full", "memopt-classifier"];

    [Fact]
    public void Template_with_any_symbol_value_creates_a_project_that_checks_without_warnings()
    {
        var folder = packages.Empty("values");
        var model = Path.Combine(Packages.Repository, "samples", "word-class", "model");
        foreach (var template in projects)
        {
            string[] rank = template == "memopt-full" ? [] : ["--rank", "8"];
            var tables = packages.New(
                folder,
                template,
                template + "-tables",
                ["--no-restore", "--data-format", "csv", "--backend", "cuda", "--store", "azure", .. rank]
            );
            var config = Config(tables, template, "csv");
            Assert.Equal(
                ("embedded:nano", "az://account/container/path"),
                ((string?)config["model"]!["source"], (string?)config["tracking"]!["artifacts"])
            );
            Assert.Equal(template == "memopt-full" ? null : 8, (int?)config["adapter"]!["rank"]);
            Assert.Contains(
                ">cuda</MemoptBackend>",
                File.ReadAllText(Path.Combine(tables, template + "-tables.csproj"))
            );

            var lists = packages.New(
                folder,
                template,
                template + "-lists",
                "--no-restore",
                "--data-format",
                "json",
                "--store",
                "local",
                "--backend",
                "cpu",
                "--model",
                model
            );
            config = Config(lists, template, "json");
            Assert.Equal(
                (model, null),
                ((string?)config["model"]!["source"], (string?)config["tracking"]!["artifacts"])
            );
            Assert.Equal(template == "memopt-full" ? 1e-5 : 2e-4, (double)config["train"]!["learningRate"]!);
            Assert.Contains(">cpu</MemoptBackend>", File.ReadAllText(Path.Combine(lists, template + "-lists.csproj")));

            var chats = packages.New(
                folder,
                template,
                template + "-chats",
                "--no-restore",
                "--data-format",
                "jsonl",
                "--store",
                "azure",
                "--azure-place",
                "az://mine/tunes/a"
            );
            config = Config(chats, template, "jsonl");
            Assert.Equal("az://mine/tunes/a", (string?)config["tracking"]!["artifacts"]);
            Assert.Equal(template == "memopt-full" ? 5e-4 : 2e-3, (double)config["train"]!["learningRate"]!);

            // The sample is the same in each format.
            foreach (
                var (file, rows) in new[]
                {
                    ("train", template == "memopt-classifier" ? 320 : 200),
                    ("eval", template == "memopt-classifier" ? 80 : 40),
                }
            )
            {
                var read = Chats(Path.Combine(chats, "data", file + ".jsonl")).ToList();
                Assert.Equal(rows, read.Count);
                Assert.Equal(read, Lists(Path.Combine(lists, "data", file + ".json")));
                Assert.Equal(read, Tables(Path.Combine(tables, "data", file + ".csv")));
            }
        }
        Packages.Dotnet(folder, "new", "sln", "-n", "All");
        Packages.Dotnet(folder, ["sln", "add", .. Directory.EnumerateDirectories(folder)]);
        Assert.Contains("0 Warning(s)", Packages.Dotnet(folder, Check.Split(' ')[1..]));
        Assert.All(
            Directory.EnumerateDirectories(folder),
            project => Assert.False(Directory.Exists(Path.Combine(project, ".memopt")), project)
        );
    }

    [Fact]
    public void Template_project_trains_at_its_first_build_and_not_at_its_second()
    {
        var folder = packages.Empty("trained");
        foreach (var template in projects)
        {
            var project = packages.New(folder, template, template[7..]);
            Config(project, template, "jsonl");
            var eval = Path.Combine(project, "data", "eval.jsonl");
            File.WriteAllLines(eval, File.ReadLines(eval).Take(4).ToList());
            Assert.True(
                File.Exists(Path.Combine(project, "obj", "project.assets.json")),
                "dotnet new restored nothing"
            );
        }
        Packages.Dotnet(folder, "new", "sln", "-n", "All");
        Packages.Dotnet(folder, ["sln", "add", .. Directory.EnumerateDirectories(folder)]);
        // Two steps reach no accuracy; the classifier's gate is lowered for them.
        string[] build = ["build", "-p:MemoptSet=train.steps=2%3Btrain.batchSize=4", "-p:MemoptMinAccuracy=0"];
        Assert.Contains("0 Warning(s)", Packages.Dotnet(folder, [.. build, "-bl:first.binlog"]));
        Assert.Equal(
            [true, true, true, true],
            Packages.Ran(Path.Combine(folder, "first.binlog"), "_MemoptTrainChanged")
        );
        foreach (var template in projects)
            Assert.NotEmpty(
                Directory.EnumerateFiles(
                    Path.Combine(folder, template[7..], ".memopt", "memopt", "adapter"),
                    "*.safetensors"
                )
            );
        Packages.Dotnet(folder, [.. build, "-bl:second.binlog"]);
        Assert.Equal(
            [false, false, false, false],
            Packages.Ran(Path.Combine(folder, "second.binlog"), "_MemoptTrainChanged")
        );
        // What is exported of a full fine-tune is a model, and it is what --config names.
        var full = Path.Combine(folder, "full");
        Packages.Dotnet(full, [.. build, "-t:MemoptExport"]);
        Assert.True(File.Exists(Path.Combine(full, "bin", "memopt", "full", "model.safetensors")));
        string[] ask = ["memopt", "infer", "--ids", "5,6,7", "--max-tokens", "8", "--ignore-eos", "--json"];
        var answer = Packages.Dotnet(full, [.. ask, "--config", "memopt.json"]);
        Assert.Equal(Packages.Dotnet(full, [.. ask, "--model", "bin/memopt/full"]), answer);
        Assert.NotEqual(Packages.Dotnet(full, ask), answer);
        // An untrained classifier does not pass the gate of its project.
        Assert.Contains(
            "error MEMOPT",
            Packages.Fails(Path.Combine(folder, "classifier"), "build", "-p:MemoptSet=train.steps=2")
        );
    }

    [Fact]
    public void App_template_has_the_options_of_the_project_templates()
    {
        var folder = packages.Empty("apps");
        var plain = packages.New(folder, "memopt-app", "plain-app", "--no-restore");
        Clean(plain);
        Assert.Contains(">cpu</MemoptBackend>", File.ReadAllText(Path.Combine(plain, "plain-app.csproj")));
        Assert.Contains(
            $"\"Memopt.Trainer\" Version=\"{packages.Version}\"",
            File.ReadAllText(Path.Combine(plain, "plain-app.csproj"))
        );
        var config = Json(Path.Combine(plain, "memopt.json"));
        Assert.Equal(
            (16, 2e-3, null),
            (
                (int)config["adapter"]!["rank"]!,
                (double)config["train"]!["learningRate"]!,
                (string?)config["tracking"]!["artifacts"]
            )
        );
        Assert.Contains("experiment = \\\"plain-app\\\"", File.ReadAllText(Path.Combine(plain, "Program.cs")));
        var other = packages.New(
            folder,
            "memopt-app",
            "Other",
            "--no-restore",
            "--model",
            "org/name",
            "--rank",
            "8",
            "--backend",
            "cuda",
            "--store",
            "azure",
            "--azure-place",
            "az://mine/tunes/a"
        );
        Clean(other);
        Assert.Contains(">cuda</MemoptBackend>", File.ReadAllText(Path.Combine(other, "Other.csproj")));
        config = Json(Path.Combine(other, "memopt.json"));
        Assert.Equal(
            (8, 2e-4, "az://mine/tunes/a"),
            (
                (int)config["adapter"]!["rank"]!,
                (double)config["train"]!["learningRate"]!,
                (string?)config["tracking"]!["artifacts"]
            )
        );
        Assert.Equal("org/name", (string?)config["model"]!["source"]);
        // A folder as Windows writes it.
        foreach (var template in new[] { "memopt-app", "memopt-lora" })
            Assert.Equal(
                @"C:\models\x",
                (string?)
                    Json(
                        Path.Combine(
                            packages.New(
                                folder,
                                template,
                                template + "-model",
                                "--no-restore",
                                "--model",
                                @"C:\models\x"
                            ),
                            "memopt.json"
                        )
                    )["model"]!["source"]
            );
    }

    [Fact]
    public void Config_template_adds_a_config_to_a_folder_that_has_one()
    {
        var folder = packages.New(packages.Empty("items"), "memopt-lora", "first", "--no-restore");
        var schema = File.ReadAllText(Path.Combine(folder, "memopt.schema.json"));
        foreach (var (kind, adapter) in new[] { ("qlora", "qlora"), ("lora", "lora"), ("full", "none") })
        {
            packages.Item(folder, "memopt-config", "-n", kind, "--no-schema", "--kind", kind);
            var config = Json(Path.Combine(folder, kind + ".json"));
            Assert.Equal(
                (adapter, kind),
                ((string?)config["adapter"]!["kind"], (string?)config["tracking"]!["experiment"])
            );
            Assert.Equal(kind == "qlora", config["quantization"] is not null);
        }
        File.WriteAllText(
            Path.Combine(folder, "first.csproj"),
            File.ReadAllText(Path.Combine(folder, "first.csproj"))
                .Replace(
                    "</Project>",
                    "  <ItemGroup><MemoptRun Include=\"qlora.json;lora.json;full.json\" /></ItemGroup>\n</Project>"
                )
        );
        Assert.Contains("0 Warning(s)", Packages.Dotnet(folder, Check.Split(' ')[1..]));

        var empty = packages.Empty("config");
        packages.Item(empty, "memopt-config", "--data-format", "csv", "--store", "azure", "--model", @"C:\models\x");
        Assert.Equal(["memopt.json", "memopt.schema.json"], Files(empty));
        Assert.Equal(schema, File.ReadAllText(Path.Combine(empty, "memopt.schema.json")));
        var made = Json(Path.Combine(empty, "memopt.json"));
        Assert.Equal(
            ("data/train.csv", @"C:\models\x"),
            ((string?)made["data"]!["train"], (string?)made["model"]!["source"])
        );
        Clean(empty);
    }

    [Fact]
    public void Pipeline_templates_check_every_push_and_train_on_a_GPU_agent()
    {
        foreach (
            var (provider, files) in new[]
            {
                ("github", new[] { ".github/workflows/memopt.yml" }),
                ("azure", ["azure-pipelines.yml"]),
                ("both", [".github/workflows/memopt.yml", "azure-pipelines.yml"]),
            }
        )
        {
            var folder = packages.Empty(provider);
            packages.Item(folder, "memopt-ci", "--provider", provider);
            Assert.Equal(files, Files(folder));
            Clean(folder);
            if (provider != "both")
                continue;

            var github = Yaml(Path.Combine(folder, ".github", "workflows", "memopt.yml"));
            Assert.Equal(
                ["pull_request", "push", "workflow_dispatch"],
                github["on"]!.AsObject().Select(trigger => trigger.Key).Order()
            );
            var (check, train) = (github["jobs"]!["check"]!, github["jobs"]!["train"]!);
            Assert.Null(check["if"]);
            Assert.Contains(Check, check["steps"]!.AsArray().Select(step => (string?)step!["run"]));
            Assert.Equal(["self-hosted", "linux", "gpu"], train["runs-on"]!.AsArray().Select(label => (string?)label));
            Assert.Equal(
                "github.event_name == 'workflow_dispatch' || startsWith(github.ref, 'refs/tags/')",
                (string?)train["if"]
            );
            Assert.Contains(
                "dotnet build -p:MemoptBackend=cuda",
                train["steps"]!.AsArray().Select(step => (string?)step!["run"])
            );
            var uses = new[] { check, train }
                .SelectMany(job => job["steps"]!.AsArray())
                .Select(step => (string?)step!["uses"])
                .OfType<string>()
                .ToList();
            Assert.Equal(6, uses.Count);
            Assert.All(uses, action => Assert.Matches("^actions/[a-z-]+@[0-9a-f]{40}$", action));

            var azure = Yaml(Path.Combine(folder, "azure-pipelines.yml"));
            Assert.Equal("*", (string?)azure["trigger"]!["branches"]!["include"]![0]);
            Assert.Equal("*", (string?)azure["pr"]!["branches"]!["include"]![0]);
            var jobs = azure["jobs"]!.AsArray();
            Assert.Equal(["check", "train"], jobs.Select(job => (string?)job!["job"]));
            Assert.Contains(Check, jobs[0]!["steps"]!.AsArray().Select(step => (string?)step!["script"]));
            Assert.Equal("gpu", (string?)jobs[1]!["pool"]!["name"]);
            Assert.StartsWith("and(succeeded(), ", (string?)jobs[1]!["condition"]);
            Assert.Contains(
                "dotnet build -p:MemoptBackend=cuda",
                jobs[1]!["steps"]!.AsArray().Select(step => (string?)step!["script"])
            );
        }
    }

    [Fact]
    public void Template_localizations_and_host_files_cover_every_symbol()
    {
        using var package = ZipFile.OpenRead(Path.Combine(packages.Feed, $"Memopt.Templates.{packages.Version}.nupkg"));
        JsonObject? Read(string name) =>
            package.GetEntry(name) is { } entry ? Parse(new StreamReader(entry.Open()).ReadToEnd()) : null;
        var templates = package
            .Entries.Select(entry => entry.FullName)
            .Where(name => name.EndsWith("/template.json", StringComparison.Ordinal))
            .Order()
            .ToList();
        Assert.Superset(
            new HashSet<string>([.. projects, "memopt-app", "memopt-config", "memopt-ci"]),
            templates.Select(name => name.Split('/')[1]).ToHashSet()
        );
        foreach (var name in templates)
        {
            var folder = name[..name.LastIndexOf('/')];
            var template = Read(name)!;
            var strings = Strings(template);
            var english = Read(folder + "/localize/templatestrings.en.json")!
                .ToDictionary(pair => pair.Key, pair => (string?)pair.Value);
            Assert.Equal(
                strings.OrderBy(pair => pair.Key, StringComparer.Ordinal),
                english.OrderBy(pair => pair.Key, StringComparer.Ordinal)
            );
            var chinese = Read(folder + "/localize/templatestrings.zh-Hans.json")!;
            Assert.Equal(strings.Keys.Order(), chinese.Select(pair => pair.Key).Order());
            Assert.All(
                chinese.Where(pair =>
                    pair.Key.EndsWith("description", StringComparison.Ordinal)
                    && !strings[pair.Key]!.EndsWith(".yml", StringComparison.Ordinal)
                ),
                pair => Assert.Matches(@"\p{IsCJKUnifiedIdeographs}", (string?)pair.Value)
            );

            var parameters = template["symbols"]!
                .AsObject()
                .Where(symbol => (string?)symbol.Value!["type"] == "parameter")
                .Select(symbol => symbol.Key)
                .ToList();
            var line = Read(folder + "/dotnetcli.host.json")!["symbolInfo"]!.AsObject();
            Assert.Equal(parameters.Order(), line.Select(symbol => symbol.Key).Order());
            Assert.Equal(
                parameters.Where(symbol => !symbol.StartsWith("skip", StringComparison.Ordinal)),
                Read(folder + "/ide.host.json")!["symbolInfo"]!.AsArray().Select(symbol => (string)symbol!["id"]!)
            );
        }
    }

    /// <summary>The config of a project; looks at its files too.</summary>
    private JsonObject Config(string project, string template, string format)
    {
        Assert.Equal(
            [
                ".config/dotnet-tools.json",
                ".gitignore",
                "NOTICE.md",
                "README.md",
                $"data/eval.{format}",
                $"data/train.{format}",
                "memopt.json",
                "memopt.schema.json",
                Path.GetFileName(project) + ".csproj",
            ],
            Files(project)
                .Where(file => !file.StartsWith("obj/", StringComparison.Ordinal))
                .OrderBy(file => file.EndsWith(".csproj", StringComparison.Ordinal))
        );
        Clean(project);
        Assert.Contains(packages.Version, File.ReadAllText(Path.Combine(project, ".config", "dotnet-tools.json")));
        Assert.StartsWith(
            $"<Project Sdk=\"Memopt.Sdk/{packages.Version}\">",
            File.ReadAllText(Path.Combine(project, Path.GetFileName(project) + ".csproj"))
        );
        var config = Json(Path.Combine(project, "memopt.json"));
        Assert.Equal(
            template switch
            {
                "memopt-qlora" => "qlora",
                "memopt-full" => "none",
                _ => "lora",
            },
            (string?)config["adapter"]!["kind"]
        );
        Assert.Equal(
            ($"data/train.{format}", $"data/eval.{format}"),
            ((string?)config["data"]!["train"], (string?)config["data"]!["eval"])
        );
        Assert.Equal(Path.GetFileName(project), (string?)config["tracking"]!["experiment"]);
        return config;
    }

    private static IEnumerable<string> Files(string folder) =>
        Directory
            .EnumerateFiles(folder, "*", SearchOption.AllDirectories)
            .Select(file => Path.GetRelativePath(folder, file).Replace('\\', '/'))
            .Order(StringComparer.Ordinal);

    /// <summary>Nothing stands for something else any more, and lines end alike.</summary>
    private static void Clean(string folder) =>
        Assert.All(
            Files(folder).Where(file => !file.StartsWith("obj/", StringComparison.Ordinal)),
            file => Assert.DoesNotMatch(Placeholder(), File.ReadAllText(Path.Combine(folder, file)))
        );

    [GeneratedRegex(
        @"MEMOPT_(VERSION|BACKEND)|LORA_RANK|MODEL_SOURCE|NANO_RATE|LARGE_RATE|TEMPLATE_|My-(Tune|App)|My_(Tune|App)|#if|#else|#endif|\r"
    )]
    private static partial Regex Placeholder();

    private static JsonObject Json(string file) => Parse(File.ReadAllText(file));

    private static JsonObject Parse(string text) =>
        JsonNode
            .Parse(text, documentOptions: new JsonDocumentOptions { CommentHandling = JsonCommentHandling.Skip })!
            .AsObject();

    private static JsonObject Yaml(string file) =>
        Parse(
            new SerializerBuilder()
                .JsonCompatible()
                .Build()
                .Serialize(new DeserializerBuilder().Build().Deserialize(File.ReadAllText(file))!)
        );

    private static IEnumerable<(string, string)> Chats(string file) =>
        File.ReadLines(file)
            .Select(line => Parse(line)["messages"]!.AsArray())
            .Select(turns => ((string)turns[0]!["content"]!, (string)turns[1]!["content"]!));

    private static IEnumerable<(string, string)> Lists(string file) =>
        JsonNode
            .Parse(File.ReadAllText(file))!
            .AsArray()
            .Select(row => ((string)row!["instruction"]!, (string)row["output"]!));

    private static IEnumerable<(string, string)> Tables(string file)
    {
        Assert.Equal("instruction,output", File.ReadLines(file).First());
        return File.ReadLines(file)
            .Skip(1)
            .Select(line => Regex.Match(line, "^\"((?:[^\"]|\"\")*)\",\"((?:[^\"]|\"\")*)\"$"))
            .Select(row => (row.Groups[1].Value.Replace("\"\"", "\""), row.Groups[2].Value.Replace("\"\"", "\"")));
    }

    /// <summary>The texts of a template by the keys that its localization files have for them.</summary>
    private static Dictionary<string, string?> Strings(JsonObject template)
    {
        var strings = new Dictionary<string, string?>();
        void Take(string prefix, JsonNode of, params string[] names)
        {
            foreach (var name in names.Where(name => of[name] is not null))
                strings[prefix + name] = (string?)of[name];
        }

        Take("", template, "author", "name", "description");
        foreach (
            var (name, symbol) in template["symbols"]!
                .AsObject()
                .Where(symbol => (string?)symbol.Value!["type"] == "parameter")
        )
        {
            Take($"symbols/{name}/", symbol!, "displayName", "description");
            foreach (var choice in symbol!["choices"]?.AsArray() ?? [])
                Take($"symbols/{name}/choices/{choice!["choice"]}/", choice, "displayName", "description");
        }
        foreach (var action in template["postActions"]?.AsArray() ?? [])
        {
            Take($"postActions/{action!["id"]}/", action, "description");
            foreach (var instruction in action["manualInstructions"]!.AsArray())
                Take($"postActions/{action["id"]}/manualInstructions/{instruction!["id"]}/", instruction, "text");
        }
        return strings;
    }
}
