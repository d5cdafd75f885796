using System.Runtime.CompilerServices;
using Memopt.Core;
using Memopt.Trainer.Native;

namespace Memopt.Trainer.Tests;

/// <summary>libtorch for every test of this assembly, and where the repository's files are.</summary>
internal static class TestBackend
{
    public static string Repository { get; } = Above(AppContext.BaseDirectory);

    public static string Golden(string family) => Path.Combine(Repository, "tests", "Trainer.Tests", "Golden", family);

    public static string Nano => Path.Combine(Repository, "samples", "word-class", "model");

    public static BackendEnvironment Environment { get; } =
        new(
            System.Environment.GetEnvironmentVariable("MEMOPT_LIBTORCH"),
            [
                System.Environment.GetEnvironmentVariable("NUGET_PACKAGES")
                    ?? Path.Combine(
                        System.Environment.GetFolderPath(System.Environment.SpecialFolder.UserProfile),
                        ".nuget",
                        "packages"
                    ),
            ],
            Above(AppContext.BaseDirectory),
            Path.Combine(Path.GetTempPath(), "memopt-tests"),
            ProgramPath.Find("python3")
        );

    [ModuleInitializer]
    internal static void Load() => Backend.Load(null, Environment);

    private static string Above(string folder)
    {
        while (!File.Exists(Path.Combine(folder, "Tool.sln")))
            folder =
                Path.GetDirectoryName(folder)
                ?? throw new DirectoryNotFoundException("Tool.sln is not above the tests");
        return folder;
    }
}
