using System.Runtime.InteropServices;
using Memopt.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Native;

/// <summary>libtorch, found and loaded for TorchSharp.</summary>
internal sealed class Backend
{
    /// <summary>The version TorchSharp's native library was built for.</summary>
    public const string BuiltFor = "2.10";

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
    public static IReadOnlyList<BackendCandidate> Search(string? requested, BackendEnvironment environment) =>
        new LibtorchSearch(requested, environment).Run();

    internal static Backend Find(string? requested, BackendEnvironment environment)
    {
        var candidates = Search(requested, environment).ToList();
        var failures = new List<string>();
        for (var i = 0; i < candidates.Count; i++)
        {
            var candidate = candidates[i];
            if (candidate.Why != LibtorchSearch.Usable)
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
                return Take(candidates, i, requested, environment);
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
        throw NotFound(requested, candidates, failures);
    }

    /// <summary>Loads a candidate, and tells so in the list of all.</summary>
    private static Backend Take(
        List<BackendCandidate> candidates,
        int at,
        string? requested,
        BackendEnvironment environment
    )
    {
        var (kind, folder) = (candidates[at].Kind!, candidates[at].Folder!);
        var patched = LoadLibraries(folder, kind, environment.Cache);
        LibtorchSelfTest.Run(kind);
        var version = VersionOf(folder, Aten.LoadedVersion());
        candidates[at] = candidates[at] with
        {
            Chosen = true,
            Why = $"first usable; libtorch {version}, self-test passed",
        };
        for (var i = at + 1; i < candidates.Count; i++)
        {
            if (candidates[i].Why == LibtorchSearch.Usable)
                candidates[i] = candidates[i] with { Why = "usable, but one before it was taken" };
        }
        return new(
            kind,
            folder,
            version,
            patched,
            candidates,
            [.. Doubts(candidates[at], version, requested, environment)]
        );
    }

    private static UserFault NotFound(
        string? requested,
        IReadOnlyList<BackendCandidate> candidates,
        IReadOnlyList<string> failures
    ) =>
        new(
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
        var patched = LoadTorchSharp(cache);
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

    /// <summary>Loads TorchSharp's library; whether it is a copy with one version need marked weak.</summary>
    private static bool LoadTorchSharp(string cache)
    {
        var shipped =
            LibtorchSearch
                .Beside.Select(beside => Path.Combine(beside, Library("LibTorchSharp")))
                .FirstOrDefault(File.Exists)
            ?? throw new DllNotFoundException($"TorchSharp's {Library("LibTorchSharp")} is not beside the program");
        try
        {
            torchSharp = NativeLibrary.Load(shipped);
            return false;
        }
        catch (DllNotFoundException e) when (OperatingSystem.IsLinux() && e.Message.Contains(ElfVersionNeed.Version))
        {
            torchSharp = NativeLibrary.Load(ElfVersionNeed.LoosenedCopy(shipped, cache));
            return true;
        }
    }

    [DllImport("kernel32", EntryPoint = "SetDllDirectoryW", CharSet = CharSet.Unicode)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    private static extern int SetDllDirectory(string folder);
}
