using System.Collections;
using System.Text.RegularExpressions;
using System.Xml;
using System.Xml.Linq;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Native;

namespace Memopt.Trainer.Runs;

/// <summary>What the process was started in: its variables and the folder's repository. Nothing else in this assembly
/// reads them; below, all is given.</summary>
internal static partial class ProcessEnvironment
{
    /// <summary>Where models come from and are kept, by the variables that Hugging Face's, ModelScope's and Azure's own
    /// tools read.</summary>
    /// <param name="offline">Asks no server.</param>
    public static HubSettings HubSettings(bool offline)
    {
        static Uri Address(string variable, string standard) =>
            Uri.TryCreate((Variable(variable) ?? standard).TrimEnd('/') + "/", UriKind.Absolute, out var address)
            && address.Scheme is "http" or "https"
                ? address
                : throw new UserFault(
                    $"{variable} is not an address.",
                    found: Variable(variable),
                    next: $"set it to {standard}, or unset it"
                );
        var home = Place("HF_HOME") ?? Path.Combine(Cache, "huggingface");
        var tokenFile = Place("HF_TOKEN_PATH") ?? Path.Combine(home, "token");
        return new()
        {
            Endpoint = Address("HF_ENDPOINT", "https://huggingface.co"),
            Token = (
                Variable("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
                ?? (File.Exists(tokenFile) ? File.ReadAllText(tokenFile) : null)
            )?.Trim(),
            HubCache = Path.GetFullPath(Place("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") ?? Path.Combine(home, "hub")),
            OwnCache = Path.GetFullPath(Path.Combine(Cache, "memopt", "models")),
            ModelScope = Address("MODELSCOPE_ENDPOINT", "https://modelscope.cn"),
            ModelScopeToken = Variable("MODELSCOPE_API_TOKEN"),
            AzureSas = Variable("AZURE_STORAGE_SAS_TOKEN"),
            AzureToken = AzureTokenAsync,
            Offline =
                offline
                || Variable("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")?.ToUpperInvariant()
                    is "1"
                        or "TRUE"
                        or "YES"
                        or "ON",
            Program = AppContext.BaseDirectory,
        };
    }

    /// <summary>Where libtorch may be.</summary>
    /// <param name="project">Folder whose restored packages come first; null is the current one.</param>
    public static BackendEnvironment BackendEnvironment(string? project = null) =>
        new(
            Place("MEMOPT_LIBTORCH"),
            [
                .. Variable("MEMOPT_PACKAGES")?.Split(Path.PathSeparator) ?? [],
                Variable("NUGET_PACKAGES") ?? UserPackages() ?? Path.Combine(Home, ".nuget", "packages"),
            ],
            project ?? Directory.GetCurrentDirectory(),
            Path.Combine(Cache, "memopt"),
            ProgramPath.Find("python3")
        );

    /// <summary>The variable by which memopt's launcher gives the ranks the id of their run, so that a restart before
    /// the first checkpoint begins no second run.</summary>
    public const string RunIdVariable = "MEMOPT_RUN_ID";

    /// <summary>The id that a launcher chose, or null.</summary>
    public static string? RunId => Variable(RunIdVariable);

    /// <summary>The place that a launcher gave this process among ranks; null where it is alone.</summary>
    public static RankPlace? RankPlace() => Distributed.RankPlace.Read(name => Variable(name));

    /// <summary>Whether ranks agree on every verb before they call it: slower, and a rank that calls another verb is
    /// named.</summary>
    public static bool CheckVerbs => Variable("MEMOPT_CHECK_RANKS") == "1";

    /// <summary>Chooses the GPU of a rank, and where NCCL's ranks meet: before libtorch is loaded, in the variables
    /// that native libraries read.</summary>
    public static void PrepareRank(RankPlace place)
    {
        SetNative("CUDA_VISIBLE_DEVICES", place.VisibleDevice(Variable("CUDA_VISIBLE_DEVICES")));
        // torchrun's own store listens at MASTER_PORT.
        if (
            Variable("NCCL_COMM_ID") is null
            && Variable("MASTER_ADDR") is { } host
            && int.TryParse(Variable("MASTER_PORT"), out var port)
        )
            SetNative("NCCL_COMM_ID", $"{host}:{port + 1}");
    }

    private static void SetNative(string name, string value)
    {
        Environment.SetEnvironmentVariable(name, value);
        NativeVariables.Set(name, value);
    }

    /// <summary>The package folder that the user's own NuGet configuration names; a project's configuration is a
    /// stranger's.</summary>
    private static string? UserPackages()
    {
        var file = OperatingSystem.IsWindows()
            ? Path.Combine(
                Environment.GetFolderPath(Environment.SpecialFolder.ApplicationData),
                "NuGet",
                "NuGet.Config"
            )
            : Path.Combine(Home, ".nuget", "NuGet", "NuGet.Config");
        try
        {
            return !File.Exists(file) ? null
                : XDocument
                    .Load(file)
                    .Root?.Elements("config")
                    .Elements("add")
                    .FirstOrDefault(setting =>
                        string.Equals(
                            (string?)setting.Attribute("key"),
                            "globalPackagesFolder",
                            StringComparison.OrdinalIgnoreCase
                        )
                    )
                    ?.Attribute("value")
                    is { } value
                    ? Path.Combine(Path.GetDirectoryName(file)!, Environment.ExpandEnvironmentVariables(value.Value))
                : null;
        }
        catch (Exception e) when (e is XmlException or IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>A storage account's place with what logs in there.</summary>
    public static BlobLocation BlobPlace(string place) =>
        Tracking.BlobLocation.Parse(place) with
        {
            ConnectionString = Variable("AZURE_STORAGE_CONNECTION_STRING"),
            Sas = Variable("AZURE_STORAGE_SAS_TOKEN"),
        };

    /// <summary>Variables that can change what a training does, for its record; the store leaves secrets out. The
    /// process that a build is changes nothing.</summary>
    public static IEnumerable<KeyValuePair<string, string>> Variables()
    {
        string[] beginnings =
        [
            "MEMOPT_",
            "CUDA_",
            "NVIDIA_",
            "OMP_",
            "MKL_",
            "PYTORCH_",
            "TORCH_",
            "DOTNET_gc",
            "DOTNET_Tiered",
            "HF_",
            "SLURM_JOB",
            "LD_LIBRARY_PATH",
            "LD_PRELOAD",
        ];
        return Environment
            .GetEnvironmentVariables()
            .Cast<DictionaryEntry>()
            .Select(item => KeyValuePair.Create("env." + item.Key, (string?)item.Value ?? ""))
            .Where(item =>
                beginnings.Any(beginning => item.Key.StartsWith("env." + beginning, StringComparison.Ordinal))
                && item.Key
                    is not (
                        "env.MEMOPT_BUILD"
                        or "env.MEMOPT_PACKAGES"
                        or "env.MEMOPT_LAUNCHER"
                        or "env." + RunIdVariable
                    )
            )
            .OrderBy(item => item.Key, StringComparer.Ordinal);
    }

    /// <summary>Git commit of a folder and whether it has changes; null outside a repository or without git.</summary>
    public static (string? Commit, bool Dirty) Commit(string folder)
    {
        var git = Git.In(folder);
        var commit = git?.Ask("rev-parse", "HEAD")?.Trim();
        return (
            commit,
            commit is not null
                && !string.IsNullOrEmpty(
                    git!.Ask("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
                )
        );
    }

    /// <summary>HOME, or where that is unset or empty the folder that the system's list of users names; it need not
    /// exist.</summary>
    private static string Home =>
        Environment.GetFolderPath(Environment.SpecialFolder.UserProfile, Environment.SpecialFolderOption.DoNotVerify);

    private static string Cache => Place("XDG_CACHE_HOME") ?? Path.Combine(Home, ".cache");

    /// <summary>The first of some variables that says something.</summary>
    private static string? Variable(params string[] names) =>
        names.Select(Environment.GetEnvironmentVariable).FirstOrDefault(value => !string.IsNullOrWhiteSpace(value));

    /// <summary>A path of a variable, with ~, ~user, $NAME and ${NAME} expanded as huggingface_hub does (expanduser,
    /// then expandvars): a file of variables has been read by no shell. What is not known stays as it is.
    /// </summary>
    private static string? Place(params string[] names)
    {
        if (Variable(names) is not { } path)
            return null;
        var name = path.Split('/')[0];
        if (name.StartsWith('~') && (name.Length == 1 ? Home : HomeOf(name[1..])) is { } home)
            path = home.TrimEnd('/') + path[name.Length..];
        return NamedVariable()
            .Replace(path, match => Environment.GetEnvironmentVariable(match.Groups["name"].Value) ?? match.Value);
    }

    private static string? HomeOf(string user) =>
        !File.Exists("/etc/passwd")
            ? null
            : File.ReadLines("/etc/passwd")
                .Select(line => line.Split(':'))
                .FirstOrDefault(fields => fields.Length > 5 && fields[0] == user)
                ?[5];

    [GeneratedRegex(@"\$(?:(?<name>[A-Za-z0-9_]+)|\{(?<name>[^}]*)\})")]
    private static partial Regex NamedVariable();

    private static async ValueTask<string> AzureTokenAsync(CancellationToken stop)
    {
        try
        {
            return await new AzureLogin().TokenAsync(stop).ConfigureAwait(false);
        }
        catch (TrackingException e)
        {
            throw new UserFault(
                "Azure storage needs a login.",
                found: e.Message,
                next: "az login, or set AZURE_STORAGE_SAS_TOKEN; a public container is read by its https:// address",
                inner: e
            )
            {
                Failed = true,
            };
        }
    }
}
