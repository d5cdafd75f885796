using System.Diagnostics;
using System.Runtime.InteropServices;
using Microsoft.Build.Logging.StructuredLogger;

namespace Memopt.Build.Tests;

/// <summary>What a user has: the packages in a local feed and the templates installed, and nothing else of the
/// repository. Packed once for all classes of tests, which run beside each other.
/// </summary>
public sealed class Packages : IDisposable
{
    private static readonly Lock change = new();
    private static readonly Lock hives = new();
    private static PackedFeed? packed;
    private static int users;

    public Packages()
    {
        lock (change)
        {
            packed ??= new();
            users++;
        }
    }

    public string Feed => packed!.Feed;

    public string Hive => packed!.Hive;

    public string Version => packed!.Version;

    public static string Repository { get; } = Above(AppContext.BaseDirectory);

    /// <summary>A new empty folder below the one whose NuGet.config names the feed.</summary>
    public string Empty(string name)
    {
        var path = Path.Combine(packed!.Folder, Guid.NewGuid().ToString("N")[..6], name);
        Directory.CreateDirectory(path);
        return path;
    }

    /// <summary>Creates a project or an item from a template; gives its folder.</summary>
    public string New(string folder, string template, string name, params string[] arguments)
    {
        Item(folder, [template, "-n", name, .. arguments]);
        return Path.Combine(folder, name);
    }

    /// <summary>Runs <c>dotnet new</c> over the templates that are installed: one at a time, for they share the
    /// settings of its hive.</summary>
    public void Item(string folder, params string[] arguments)
    {
        lock (hives)
            Run(folder, fails: false, ["new", .. arguments, "--debug:custom-hive", Hive]);
    }

    /// <summary>Whether the long forms run: ./test.sh --full.</summary>
    public static bool Full { get; } = Environment.GetEnvironmentVariable("MEMOPT_TESTS_FULL") == "1";

    /// <summary>A project whose training takes so many steps of a few sequences and whose evaluation reads few rows:
    /// larger ones would take most of the time. It is a copy of one that the template made once, is not restored, and
    /// is ready after a third of the processor time of <c>dotnet new</c>. Gives its folder.</summary>
    public string Small(string folder, string name, int steps = 1, int batchSize = 2)
    {
        var (made, project) = (packed!.Made.Value, Path.Combine(folder, name));
        foreach (var file in Directory.EnumerateFiles(made, "*", SearchOption.AllDirectories))
        {
            var copy = Path.Combine(project, Path.GetRelativePath(made, file).Replace(PackedFeed.Name, name));
            Directory.CreateDirectory(Path.GetDirectoryName(copy)!);
            File.WriteAllText(copy, File.ReadAllText(file).Replace(PackedFeed.Name, name));
        }
        return Shorten(project, steps, batchSize);
    }

    /// <summary>The same by <c>dotnet new</c>, which restores it.</summary>
    public string NewSmall(string folder, string name, int steps = 1, int batchSize = 2) =>
        Shorten(New(folder, "memopt-qlora", name, "--rank", "4"), steps, batchSize);

    private static string Shorten(string project, int steps, int batchSize)
    {
        Edit(project, "\"epochs\": 3", $"\"steps\": {steps}");
        Edit(project, "\"batchSize\": 16", $"\"batchSize\": {batchSize}");
        var eval = Path.Combine(project, "data", "eval.jsonl");
        File.WriteAllLines(eval, File.ReadLines(eval).Take(4).ToList());
        return project;
    }

    /// <summary>Changes the config of a project.</summary>
    public static void Edit(string project, string old, string now)
    {
        var config = Path.Combine(project, "memopt.json");
        var text = File.ReadAllText(config);
        Assert.Contains(old, text);
        File.WriteAllText(config, text.Replace(old, now));
    }

    /// <summary>Runs dotnet and gives what it printed; its exit code must be 0.</summary>
    public static string Dotnet(string folder, params string[] arguments) => Run(folder, fails: false, arguments);

    /// <summary>Runs dotnet where it has to fail.</summary>
    public static string Fails(string folder, params string[] arguments) => Run(folder, fails: true, arguments);

    private static readonly AsyncLocal<bool> offline = new();

    /// <summary>Whether the builds of this test may ask no model hub.</summary>
    public static bool Offline
    {
        set => offline.Value = value;
    }

    /// <summary>Starts dotnet as a user's shell would: an interrupt ends it, although these tests may have been started
    /// where interrupts are ignored.</summary>
    public static Process Start(string folder, params string[] arguments) =>
        OperatingSystem.IsLinux()
            ? Start("env", folder, ["--default-signal=INT", "dotnet", .. arguments])
            : Start("dotnet", folder, arguments);

    /// <summary>Starts a build as a script does in the background, where an interrupt is ignored, and on a node of its
    /// own, as the second project of a parallel build is.</summary>
    public static Process StartBehind(string folder) =>
        Start("sh", folder, ["-c", "trap '' INT; MSBUILDNOINPROCNODE=1 exec dotnet build"]);

    private static Process Start(string program, string folder, string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["DOTNET_NOLOGO"] = "1";
        if (offline.Value)
            start.Environment["HF_HUB_OFFLINE"] = "1";
        start.Environment["OMP_NUM_THREADS"] = "1"; // tests run side by side
        // A node that stayed would keep the test's pipes open.
        start.Environment["MSBUILDDISABLENODEREUSE"] = "1";
        // The SDK that runs the tests hands these on; the user's shell has none of them.
        foreach (
            var name in start
                .Environment.Keys.Where(key =>
                    (key.StartsWith("MSBUILD", StringComparison.OrdinalIgnoreCase) && key != "MSBUILDDISABLENODEREUSE")
                    || key.StartsWith("VSTEST", StringComparison.OrdinalIgnoreCase)
                )
                .ToList()
        )
            start.Environment.Remove(name);
        return Process.Start(start)!;
    }

    /// <summary>How a build's targets of a name went, by its binary log: whether each ran or was skipped as up to
    /// date.</summary>
    public static IReadOnlyList<bool> Ran(string binlog, string target)
    {
        var build = BinaryLog.ReadBuild(binlog);
        return
        [
            .. build
                .FindChildrenRecursive<Target>(found => found.Name == target)
                .Select(found =>
                    !found
                        .FindChildrenRecursive<Message>(message =>
                            message.Text.StartsWith("Skipping target", StringComparison.Ordinal)
                        )
                        .Any() && found.FindChildrenRecursive<Microsoft.Build.Logging.StructuredLogger.Task>().Any()
                ),
        ];
    }

    public void Dispose()
    {
        lock (change)
        {
            if (--users > 0)
                return;
            packed!.Remove();
            packed = null;
        }
    }

    private static string Run(string folder, bool fails, params string[] arguments)
    {
        using var process = Start(folder, arguments);
        var (output, error) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        Assert.True(process.WaitForExit(600_000), $"dotnet {string.Join(' ', arguments)} did not end");
        process.WaitForExit();
        Assert.True(
            fails == (process.ExitCode != 0),
            $"dotnet {string.Join(' ', arguments)} exit {process.ExitCode}\n{output.Result}\n{error.Result}"
        );
        return output.Result;
    }

    private sealed class PackedFeed
    {
        public PackedFeed()
        {
            // The assemblies are those that were built for the tests: only the packages have a version of their own.
            Run(
                Repository,
                fails: false,
                "pack",
                "tests/Build.Tests/Packages.slnf",
                "-c",
                "Release",
                "-o",
                Feed,
                $"-p:PackageVersion={Version}"
            );
            File.WriteAllText(
                Path.Combine(Folder, "NuGet.config"),
                $"<configuration><packageSources><add key=\"local\" value=\"{Feed}\" "
                    + "/></packageSources></configuration>"
            );
            Run(
                Folder,
                fails: false,
                "new",
                "install",
                Path.Combine(Feed, $"Memopt.Templates.{Version}.nupkg"),
                "--debug:custom-hive",
                Hive
            );
            Made = new(() =>
            {
                string[] project = ["memopt-qlora", "-n", Name, "--rank", "4", "--no-restore"];
                lock (hives)
                    Run(Folder, fails: false, ["new", .. project, "--debug:custom-hive", Hive]);
                return Path.Combine(Folder, Name);
            });
        }

        /// <summary>The name in the project that is copied, which no other text in it contains.</summary>
        public const string Name = "TheNameOfTheProject";

        /// <summary>A project that the template made.</summary>
        public Lazy<string> Made { get; }

        public string Folder { get; } = Directory.CreateTempSubdirectory("memopt packages ").FullName;

        public string Feed => Path.Combine(Folder, "feed");

        public string Hive => Path.Combine(Folder, "hive");

        public string Version { get; } = "0.1.0-test." + DateTime.UtcNow.Ticks;

        public void Remove()
        {
            Directory.Delete(Folder, recursive: true);
            var cache =
                Environment.GetEnvironmentVariable("NUGET_PACKAGES")
                ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".nuget", "packages");
            foreach (
                var package in Directory
                    .EnumerateDirectories(cache, "memopt*")
                    .Select(package => Path.Combine(package, Version))
                    .Where(Directory.Exists)
            )
                Directory.Delete(package, recursive: true);
        }
    }

    private static string Above(string folder)
    {
        while (!File.Exists(Path.Combine(folder, "Tool.sln")))
            folder =
                Path.GetDirectoryName(folder)
                ?? throw new DirectoryNotFoundException("Tool.sln is not above the tests");
        return folder;
    }
}

/// <summary>Signals as a shell sends them.</summary>
internal static partial class Signals
{
    public const int Interrupt = 2;
    public const int Kill = 9;
    public const int Stop = 19;

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    public static partial int Send(int pid, int signal);
}
