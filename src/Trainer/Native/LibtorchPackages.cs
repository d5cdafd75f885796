using System.Text.Json;
using System.Text.RegularExpressions;

namespace Memopt.Trainer.Native;

/// <summary>A package that holds libraries of libtorch.</summary>
/// <param name="Build">cpu, or cuda with its version: cuda-12.8.</param>
/// <param name="Version">Of libtorch.</param>
/// <param name="Libraries">Folder of the libraries.</param>
internal sealed record LibtorchPackage(string Build, string Version, string Libraries);

/// <summary>libtorch in the user's own package folders, by the exact names that its publisher gives and for this
/// platform. The files of a restored project, which may be a stranger's, choose among these and name no folder.
/// </summary>
internal static partial class LibtorchPackages
{
    private const long MostOfAssets = 64 << 20;

    /// <summary>The packages that are here, for the version that TorchSharp was built for.</summary>
    public static List<LibtorchPackage> Installed(IEnumerable<string> folders) =>
        [
            .. from folder in folders
            where Path.IsPathFullyQualified(folder) && Directory.Exists(folder)
            from package in Directory.EnumerateDirectories(folder, "libtorch-*").Order(StringComparer.Ordinal)
            let build = Build(Path.GetFileName(package))
            where build is not null
            from version in Directory
                .EnumerateDirectories(package, Backend.BuiltFor + ".*")
                .OrderDescending(StringComparer.Ordinal)
            where Versions().IsMatch(Path.GetFileName(version))
            let libraries = Path.Combine(version, "runtimes", Backend.RuntimeId, "native")
            where Directory.Exists(libraries)
            select new LibtorchPackage(build, Path.GetFileName(version), libraries),
        ];

    /// <summary>Those packages that restored projects at or above a folder name, project by project, up to the top of
    /// the repository.</summary>
    public static IEnumerable<List<LibtorchPackage>> Restored(List<LibtorchPackage> packages, string project)
    {
        for (
            var folder = new DirectoryInfo(project);
            folder is not null;
            folder = Path.Exists(Path.Combine(folder.FullName, ".git")) ? null : folder.Parent
        )
        {
            var shared = Path.Combine(folder.FullName, "artifacts", "obj");
            foreach (
                var file in (Directory.Exists(shared) ? Directory.EnumerateDirectories(shared) : [])
                    .Prepend(Path.Combine(folder.FullName, "obj"))
                    .Select(path => new FileInfo(Path.Combine(path, "project.assets.json")))
            )
            {
                var named = Named(file);
                yield return [.. packages.Where(package => named.Contains((package.Build, package.Version)))];
            }
        }
    }

    /// <summary>Folders from which packages can be loaded.</summary>
    /// <param name="packages">The packages.</param>
    /// <param name="cache"> The user's cache. CUDA builds come as many packages, a few libraries in each, and load only
    /// when all are in one folder: they are linked into one there.
    /// </param>
    public static IEnumerable<string> Folders(List<LibtorchPackage> packages, string cache)
    {
        foreach (
            var build in packages
                .Where(package => package.Build != "cpu")
                .GroupBy(package => $"{package.Build}-{package.Version}")
        )
        {
            var libraries = build
                .SelectMany(package => Directory.EnumerateFiles(package.Libraries))
                .GroupBy(file => Path.GetFileName(file))
                .ToDictionary(group => group.Key, group => group.First());
            // Not all are there before they are restored, or before the packages' own build step has copied them into
            // one folder.
            if (
                libraries.ContainsKey(Backend.Library("torch_cpu"))
                && libraries.ContainsKey(Backend.Library("torch_cuda"))
            )
                yield return Linked(libraries, Path.Combine(cache, "libtorch", build.Key));
        }
        foreach (
            var package in packages.Where(package =>
                package.Build == "cpu" && File.Exists(Path.Combine(package.Libraries, Backend.Library("torch_cpu")))
            )
        )
            yield return package.Libraries;
    }

    /// <summary>Which build a package of a name is of, or null when its publisher gives no such name for this
    /// platform.</summary>
    private static string? Build(string name) =>
        Names().Match(name) is { Success: true } match
        && match.Groups["platform"].Value.Equals(Backend.RuntimeId, StringComparison.OrdinalIgnoreCase)
            ? match.Groups["build"].Value.ToLowerInvariant()
            : null;

    private static HashSet<(string, string)> Named(FileInfo file)
    {
        try
        {
            // NuGet writes no link; a named pipe or a device has no length, and reading it may never end.
            if (file is not { Exists: true, LinkTarget: null, Length: > 0 and <= MostOfAssets })
                return [];
            using var assets = JsonDocument.Parse(File.ReadAllBytes(file.FullName));
            return
                assets.RootElement is { ValueKind: JsonValueKind.Object } root
                && root.TryGetProperty("libraries", out var libraries)
                && libraries.ValueKind == JsonValueKind.Object
                ?
                [
                    .. libraries
                        .EnumerateObject()
                        .Select(library => library.Name.Split('/'))
                        .Where(name => name.Length == 2)
                        .Select(name => (Build(name[0]) ?? "", name[1])),
                ]
                : [];
        }
        catch (Exception e)
            when (e is JsonException or InvalidOperationException or IOException or UnauthorizedAccessException)
        {
            return []; // half-written by a restore under way, or no text
        }
    }

    private static string Linked(Dictionary<string, string> libraries, string folder)
    {
        PrivateFolder.Make(folder);
        foreach (
            var stray in Directory.EnumerateFiles(folder).Where(file => !libraries.ContainsKey(Path.GetFileName(file)))
        )
            File.Delete(stray);
        foreach (var (name, file) in libraries)
        {
            var link = new FileInfo(Path.Combine(folder, name));
            if (link.LinkTarget == file)
                continue;
            link.Delete();
            File.CreateSymbolicLink(link.FullName, file);
        }
        return folder;
    }

    [GeneratedRegex(
        @"^libtorch-(?<build>cpu|cuda-\d+\.\d+)-(?<platform>(linux|win|osx)-(x64|arm64))"
            + @"(-part\d+(-primary|-fragment\d+)?)?\z",
        RegexOptions.IgnoreCase | RegexOptions.CultureInvariant
    )]
    private static partial Regex Names();

    [GeneratedRegex(@"^\d+\.\d+(\.\d+){1,2}\z")]
    private static partial Regex Versions();
}
