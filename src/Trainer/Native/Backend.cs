using System.Diagnostics;
using System.Runtime.InteropServices;
using Memopt.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Native;

/// <summary>What the search for libtorch may look at; gathered once at the door, since nothing below reads environment
/// variables.</summary>
/// <param name="Libtorch">MEMOPT_LIBTORCH: a folder that holds libtorch, or null.</param>
/// <param name="Packages">The user's own folders of NuGet packages; no other is loaded from.</param>
/// <param name="Project">Folder whose restored packages come first; its parents are searched too, up to the top of its
/// repository.</param>
/// <param name="Cache">Per-user folder for patched copies.</param>
/// <param name="Python">Full path of Python, or null to leave it out.</param>
internal sealed record BackendEnvironment(
    string? Libtorch,
    IReadOnlyList<string> Packages,
    string Project,
    string Cache,
    string? Python
);

/// <summary>A place where libtorch was looked for.</summary>
/// <param name="Source">Which step of the search it came from.</param>
/// <param name="Folder">The folder, or null when the step found none.</param>
/// <param name="Kind">cpu or cuda.</param>
/// <param name="Chosen">Whether it was taken.</param>
/// <param name="Why">Why, or why not.</param>
internal sealed record BackendCandidate(string Source, string? Folder, string? Kind, bool Chosen, string Why);

/// <summary>libtorch, found and loaded for TorchSharp.</summary>
internal sealed class Backend
{
    /// <summary>The version TorchSharp's native library was built for.</summary>
    public const string BuiltFor = "2.10";

    private const string Usable = "usable";

    private static readonly Lock gate = new();
    private static Backend? loaded;
    private static nint torchSharp,
        torchCpu,
        torchCuda;

    /// <summary>The loaded libtorch_cpu.</summary>
    internal static nint TorchCpu => torchCpu;

    /// <summary>The kernel compiler that came with a CUDA libtorch; null on a CPU, or when none was found that knows
    /// the card.</summary>
    public static Nvrtc? Compiler { get; private set; }

    private Backend(
        string kind,
        string folder,
        string version,
        bool patched,
        IReadOnlyList<BackendCandidate> candidates,
        IReadOnlyList<string> warnings
    ) =>
        (Kind, Folder, Version, Patched, Candidates, Warnings) = (kind, folder, version, patched, candidates, warnings);

    /// <summary>cpu or cuda.</summary>
    public string Kind { get; }

    public string Folder { get; }

    /// <summary>What the library says of itself, with the build's suffix where its folder states one:
    /// 2.11.0+cu130.</summary>
    public string Version { get; }

    /// <summary>Whether TorchSharp's library was loaded from a copy with one version need marked weak.</summary>
    public bool Patched { get; }

    public IReadOnlyList<BackendCandidate> Candidates { get; }

    public IReadOnlyList<string> Warnings { get; }

    /// <summary>Devices that tensors can be on.</summary>
    public IReadOnlyList<string> Devices =>
        ["cpu", .. Kind == "cuda" ? Enumerable.Range(0, cuda.device_count()).Select(i => $"cuda:{i}") : []];

    public Device Device => Kind == "cuda" ? new Device("cuda:0") : new Device("cpu");

    /// <summary>Finds libtorch, loads it and TorchSharp's library, and checks that they compute. Once a process: later
    /// calls return the first.</summary>
    /// <param name="requested">null, cpu, cuda, or a folder.</param>
    /// <param name="environment">Where to look.</param>
    public static Backend Load(string? requested, BackendEnvironment environment)
    {
        lock (gate)
            return loaded ??= Find(requested, environment);
    }

    /// <summary>Every place libtorch may be in, in the order of preference, without loading any.</summary>
    public static IReadOnlyList<BackendCandidate> Search(string? requested, BackendEnvironment environment)
    {
        var found = new List<BackendCandidate>();
        void Look(string source, IEnumerable<string?> folders, string missing)
        {
            var all = folders.OfType<string>().Select(WithLibraries).Distinct().ToList();
            var news = all.Where(folder => found.All(candidate => candidate.Folder != folder)).ToList();
            if (news.Count == 0)
                found.Add(new(source, null, null, false, all.Count > 0 ? "nothing that is not listed above" : missing));
            foreach (var folder in news)
            {
                if (!File.Exists(Path.Combine(folder, Library("torch_cpu"))))
                {
                    found.Add(new(source, folder, null, false, $"no {Library("torch_cpu")} there"));
                    continue;
                }
                // A build with CUDA computes on the CPU as well, so without a GPU (or on request) it is as good as a
                // CPU build.
                var built = File.Exists(Path.Combine(folder, Library("torch_cuda")));
                var kind = built && requested != "cpu" && Cuda.DeviceCount() > 0 ? "cuda" : "cpu";
                found.Add(
                    new(
                        source,
                        folder,
                        kind,
                        false,
                        requested != "cuda" || kind == "cuda" ? Usable
                            : built ? "built with CUDA, but no CUDA device answered"
                            : "a CPU build, but --backend asks for cuda"
                    )
                );
            }
        }

        if (requested is not (null or "cpu" or "cuda"))
        {
            Look("--backend", [requested], "");
            return found;
        }
        Look("MEMOPT_LIBTORCH", [environment.Libtorch], "not set");
        if (Beside.FirstOrDefault(folder => File.Exists(Path.Combine(folder, Library("torch_cpu")))) is { } beside)
            Look("beside the program", [beside], "");
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
        if (environment.Python is not null && !found.Any(candidate => candidate.Why == Usable))
            Look("python3", [PythonTorch(environment.Python)], "no Python with torch");
        return found;
    }

    internal static Backend Find(string? requested, BackendEnvironment environment)
    {
        var candidates = Search(requested, environment).ToList();
        var failures = new List<string>();
        for (var i = 0; i < candidates.Count; i++)
        {
            var candidate = candidates[i];
            if (candidate.Why != Usable)
                continue;
            if (torchCpu != 0)
            {
                // A process cannot let go of one libtorch and take another.
                candidates[i] = candidate with
                {
                    Why = "not tried: the one before it was loaded and failed; name this folder with --backend",
                };
                continue;
            }
            try
            {
                var patched = LoadLibraries(candidate.Folder!, candidate.Kind!, environment.Cache);
                SelfTest(candidate.Kind!);
                var version = VersionOf(candidate.Folder!, Aten.LoadedVersion());
                candidates[i] = candidate with
                {
                    Chosen = true,
                    Why = $"first usable; libtorch {version}, self-test passed",
                };
                for (var j = i + 1; j < candidates.Count; j++)
                    candidates[j] =
                        candidates[j].Why == Usable
                            ? candidates[j] with
                            {
                                Why = "usable, but one before it was taken",
                            }
                            : candidates[j];
                return new(
                    candidate.Kind!,
                    candidate.Folder!,
                    version,
                    patched,
                    candidates,
                    [.. Doubts(candidates[i], version, requested, environment)]
                );
            }
            catch (Exception e)
                when (e
                        is DllNotFoundException
                            or BadImageFormatException
                            or EntryPointNotFoundException
                            or ExternalException
                            or NotSupportedException
                            or UserFault
                            or InvalidOperationException
                            or TypeInitializationException
                )
            {
                failures.Add($"{candidate.Folder}: {e.Message}");
                candidates[i] = candidate with { Why = e.Message };
            }
        }
        throw new UserFault(
            requested is null ? "libtorch was not found." : $"No libtorch for --backend {requested} was found.",
            found: failures.Count > 0
                ? string.Join("; ", failures)
                : string.Join("; ", candidates.Select(c => $"{c.Source}: {c.Why}")),
            next: requested == "cuda"
                ? "MEMOPT_LIBTORCH=/path/to/torch/lib dotnet memopt doctor --backend cuda   (the lib folder of a "
                    + "PyTorch or libtorch built with CUDA)"
                : $"dotnet add package libtorch-cpu-{RuntimeId} --version {BuiltFor}.0   (or set MEMOPT_LIBTORCH "
                    + "to a folder that holds libtorch; see: dotnet memopt doctor)"
        )
        {
            Failed = requested is null or "cpu" or "cuda",
        };
    }

    private static IEnumerable<string> Doubts(
        BackendCandidate chosen,
        string version,
        string? requested,
        BackendEnvironment environment
    )
    {
        if (!version.StartsWith(BuiltFor + ".", StringComparison.Ordinal))
            yield return $"libtorch {version} is not the {BuiltFor} that TorchSharp was built for; the numerical "
                + "self-test passed";
        if (chosen.Kind == "cuda" && Compiler is null)
            yield return "no NVRTC that knows this card was found beside libtorch: its own operators are used, slower "
                + "and in more memory";
        if (requested is null && environment.Libtorch is not null && chosen.Source != "MEMOPT_LIBTORCH")
            yield return $"MEMOPT_LIBTORCH is {environment.Libtorch}, which was not usable; {chosen.Folder} was taken";
        if (requested is null && chosen.Kind == "cpu" && Cuda.DeviceName() is { } name)
            yield return $"{name} is here, but this libtorch computes on the CPU only; --backend cuda looks for one "
                + "that uses it";
    }

    /// <summary>The folder itself, or its <c>lib</c> when it is the top of an unpacked libtorch.</summary>
    private static string WithLibraries(string folder)
    {
        var full = Path.GetFullPath(folder);
        var inner = Path.Combine(full, "lib");
        return
            !File.Exists(Path.Combine(full, Library("torch_cpu")))
            && File.Exists(Path.Combine(inner, Library("torch_cpu")))
            ? inner
            : full;
    }

    internal static string Library(string name) =>
        OperatingSystem.IsWindows() ? name + ".dll"
        : OperatingSystem.IsMacOS() ? $"lib{name}.dylib"
        : $"lib{name}.so";

    internal static string RuntimeId =>
        (
            OperatingSystem.IsWindows() ? "win"
            : OperatingSystem.IsMacOS() ? "osx"
            : "linux"
        )
        + "-"
        + RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant();

    /// <summary>Where a build or a publication puts the native libraries of packages.</summary>
    private static string[] Beside =>
        [Path.Combine(AppContext.BaseDirectory, "runtimes", RuntimeId, "native"), AppContext.BaseDirectory];

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

    /// <summary>The library's own version; where the folder states the same with a suffix, that.</summary>
    internal static string VersionOf(string folder, Version loaded) =>
        Stated(folder) is { } stated && stated.Split('+')[0] == loaded.ToString() ? stated : loaded.ToString();

    /// <summary>The version that a libtorch folder states: PyTorch in version.py, libtorch in build-version. Null where
    /// neither is.</summary>
    private static string? Stated(string folder)
    {
        var top = Path.Combine(folder, "..");
        return File.Exists(Path.Combine(top, "version.py"))
                ? File.ReadLines(Path.Combine(top, "version.py"))
                    .FirstOrDefault(line => line.StartsWith("__version__", StringComparison.Ordinal))
                    ?.Split('\'', '"')
                    .ElementAtOrDefault(1)
            : File.Exists(Path.Combine(top, "build-version"))
                ? File.ReadAllText(Path.Combine(top, "build-version")).Trim()
            : null;
    }

    private static bool LoadLibraries(string folder, string kind, string cache)
    {
        if (kind == "cuda")
            AllocatorSettings.Apply(
                System.Version.TryParse(Stated(folder)?.Split('+')[0], out var version) ? version : null
            );
        if (OperatingSystem.IsWindows())
            _ = SetDllDirectory(""); // no library that another one needs comes from the current folder
        foreach (var name in new[] { "c10", "torch_cpu", "c10_cuda", "torch_cuda", "torch" })
        {
            var file = Path.Combine(folder, Library(name));
            if (!File.Exists(file))
                continue;
            var handle = NativeLibrary.Load(file);
            if (name == Aten.Library)
                torchCpu = handle;
            if (name == Aten.CudaLibrary)
                torchCuda = handle;
        }
        var shipped =
            Beside.Select(beside => Path.Combine(beside, Library("LibTorchSharp"))).FirstOrDefault(File.Exists)
            ?? throw new DllNotFoundException($"TorchSharp's {Library("LibTorchSharp")} is not beside the program");
        var patched = false;
        try
        {
            torchSharp = NativeLibrary.Load(shipped);
        }
        catch (DllNotFoundException e) when (OperatingSystem.IsLinux() && e.Message.Contains(ElfVersionNeed.Version))
        {
            torchSharp = NativeLibrary.Load(ElfVersionNeed.LoosenedCopy(shipped, cache));
            patched = true;
        }
        NativeLibrary.SetDllImportResolver(
            typeof(torch).Assembly,
            (name, _, _) => name == "LibTorchSharp" ? torchSharp : 0
        );
        NativeLibrary.SetDllImportResolver(
            typeof(Backend).Assembly,
            (name, _, _) =>
                name == Aten.Library ? torchCpu
                : name == Aten.CudaLibrary ? torchCuda
                : 0
        );
        // TorchSharp's own start-up asks the system for LibTorchSharp by name, which finds the library loaded here: it
        // copies nothing.
        if (kind == "cuda")
        {
            torch.InitializeDeviceType(DeviceType.CUDA);
            Compiler =
                Nvrtc.Find(folder, cache) is { } compiler && compiler.Supports(Cuda.Capability()) ? compiler : null;
        }
        return patched;
    }

    [DllImport("kernel32", EntryPoint = "SetDllDirectoryW", CharSet = CharSet.Unicode)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    private static extern int SetDllDirectory(string folder);

    /// <summary>Product, gradient and bf16 against results worked out by hand.</summary>
    private static void SelfTest(string kind)
    {
        using var scope = NewDisposeScope();
        var device = new Device(kind == "cuda" ? "cuda:0" : "cpu");
        var a = tensor(new float[] { 1, 2, 3, 4 }, device: device).reshape(2, 2).requires_grad_(true);
        var product = a.matmul(a); // [[7, 10], [15, 22]]
        product.sum().backward(); // d/da sum(a a) = 1 aᵀ + aᵀ 1 = [[7, 11], [9, 13]]
        float[] expected = [7, 10, 15, 22, 7, 11, 9, 13, 5];
        var narrow = tensor(new float[] { 1, 2 }, device: device).to(bfloat16);
        var got = product
            .detach()
            .cpu()
            .data<float>()
            .Concat(a.grad!.cpu().data<float>())
            .Append(narrow.mul(narrow).sum().to(float32).cpu().item<float>())
            .ToArray();
        if (!got.SequenceEqual(expected))
            throw new UserFault(
                "libtorch computes wrong results.",
                found: string.Join(", ", got),
                next: "dotnet memopt doctor"
            )
            {
                Failed = true,
            };
    }
}
