using System.Diagnostics;

namespace Memopt.Trainer.Native;

/// <summary>Looks for libtorch in every place it may be in, in the order of preference, and loads none.</summary>
/// <param name="requested">null, cpu, cuda, or a folder.</param>
/// <param name="environment">Where to look.</param>
internal sealed class LibtorchSearch(string? requested, BackendEnvironment environment)
{
    /// <summary>The reason of a candidate that may be loaded.</summary>
    public const string Usable = "usable";

    private readonly List<BackendCandidate> found = [];

    public IReadOnlyList<BackendCandidate> Run()
    {
        if (requested is not (null or "cpu" or "cuda"))
        {
            Look("--backend", [requested], "");
            return found;
        }
        Look("MEMOPT_LIBTORCH", [environment.Libtorch], "not set");
        if (Beside.FirstOrDefault(HasLibtorch) is { } beside)
            Look("beside the program", [beside], "");
        LookInPackages();
        if (environment.Python is not null && !found.Any(candidate => candidate.Why == Usable))
            Look("python3", [PythonTorch(environment.Python)], "no Python with torch");
        return found;
    }

    private void LookInPackages()
    {
        var packages = LibtorchPackages.Installed(environment.Packages);
        var kept = string.Join(" or ", environment.Packages);
        Look(
            "project's packages",
            LibtorchPackages
                .Restored(packages, environment.Project)
                .SelectMany(chosen => LibtorchPackages.Folders(chosen, environment.Cache)),
            $"no restored project names a libtorch package that is in {kept}"
        );
        Look("NuGet's cache", LibtorchPackages.Folders(packages, environment.Cache), $"no libtorch package in {kept}");
    }

    private void Look(string source, IEnumerable<string?> folders, string missing)
    {
        var all = folders.OfType<string>().Select(WithLibraries).Distinct().ToList();
        var news = all.Where(folder => found.All(candidate => candidate.Folder != folder)).ToList();
        if (news.Count == 0)
            found.Add(new(source, null, null, false, all.Count > 0 ? "nothing that is not listed above" : missing));
        foreach (var folder in news)
            found.Add(CandidateOf(source, folder));
    }

    private BackendCandidate CandidateOf(string source, string folder)
    {
        if (!HasLibtorch(folder))
            return new(source, folder, null, false, $"no {Backend.Library("torch_cpu")} there");
        // A build with CUDA computes on the CPU as well, so without a GPU (or on request) it is as good as a CPU build.
        var built = File.Exists(Path.Combine(folder, Backend.Library("torch_cuda")));
        var kind = built && requested != "cpu" && Cuda.DeviceCount() > 0 ? "cuda" : "cpu";
        var why =
            requested != "cuda" || kind == "cuda" ? Usable
            : built ? "built with CUDA, but no CUDA device answered"
            : "a CPU build, but --backend asks for cuda";
        return new(source, folder, kind, false, why);
    }

    private static bool HasLibtorch(string folder) => File.Exists(Path.Combine(folder, Backend.Library("torch_cpu")));

    /// <summary>The folder itself, or its <c>lib</c> when it is the top of an unpacked libtorch.</summary>
    private static string WithLibraries(string folder)
    {
        var full = Path.GetFullPath(folder);
        var inner = Path.Combine(full, "lib");
        return !HasLibtorch(full) && HasLibtorch(inner) ? inner : full;
    }

    /// <summary>Where a build or a publication puts the native libraries of packages.</summary>
    public static string[] Beside =>
        [Path.Combine(AppContext.BaseDirectory, "runtimes", Backend.RuntimeId, "native"), AppContext.BaseDirectory];

    /// <summary>Where Python keeps torch, which is not run. Isolated, and started at the root, Python takes no module
    /// from the current folder or PYTHONPATH.</summary>
    private static string? PythonTorch(string python)
    {
        const string find =
            "import importlib.util, os, site, sys; sys.path.append(site.getusersitepackages()); "
            + "print(os.path.join(os.path.dirname(importlib.util.find_spec('torch').origin), 'lib'))";
        try
        {
            using var process = Process.Start(
                new ProcessStartInfo(python, ["-I", "-c", find])
                {
                    WorkingDirectory = Path.GetPathRoot(AppContext.BaseDirectory),
                    RedirectStandardOutput = true,
                    RedirectStandardError = true,
                }
            )!;
            process.ErrorDataReceived += (_, _) => { };
            process.BeginErrorReadLine();
            var output = process.StandardOutput.ReadToEndAsync();
            if (!process.WaitForExit(20_000))
                process.Kill();
            process.WaitForExit();
            return process.ExitCode == 0 && output.Result.Trim() is var folder && Path.IsPathFullyQualified(folder)
                ? folder
                : null;
        }
        catch (Exception e) when (e is System.ComponentModel.Win32Exception or InvalidOperationException)
        {
            return null;
        }
    }
}
