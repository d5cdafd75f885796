using System.CommandLine;
using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Memopt.Tracking;
using Memopt.Trainer;
using Memopt.Trainer.Hub;
using Memopt.Trainer.Native;
using Spectre.Console;

namespace Memopt.Tool;

/// <summary>The door between commands and the world: output, faults, environment. Results go to standard output, all else to standard error.</summary>
internal static class Shell
{
    public static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.CamelCase) },
    };

    /// <summary>The same on one line.</summary>
    public static readonly JsonSerializerOptions Lines = new(Json) { WriteIndented = false };

    /// <summary>Progress and messages.</summary>
    public static IAnsiConsole Progress { get; } = Wide(Console.IsErrorRedirected, AnsiConsole.Create(new AnsiConsoleSettings
    {
        Out = new AnsiConsoleOutput(Console.Error),
        Ansi = Console.IsErrorRedirected ? AnsiSupport.No : AnsiSupport.Detect,
    }));

    /// <summary>Tables asked for.</summary>
    public static IAnsiConsole Output { get; } = Wide(Console.IsOutputRedirected, AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Console.Out) }));

    public static string Version { get; } = typeof(Shell).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0] ?? "0";

    public static Option<bool> JsonOption() => new("--json") { Description = "Print the result as JSON on standard output." };

    public static Option<string?> BackendOption() => new("--backend") { Description = "cpu, cuda, or a folder that holds libtorch." };

    /// <summary>Exit codes: 0 done, 1 failed, 2 bad input or configuration, 130 stopped on request.</summary>
    public static int Guard(bool json, Func<int> action)
    {
        try
        {
            return action();
        }
        catch (UserFault fault)
        {
            return Report(json, fault, fault.Problems.Count > 0 ? 2 : 1);
        }
        catch (QueryException e)
        {
            return Report(json, new UserFault(e.Message, next: "docs/tracking.md has the language; the simplest filter is \"metrics.loss < 1\""), 2);
        }
        catch (TrackingException e)
        {
            return Report(json, new UserFault(e.Message, next: e.Next ?? "check tracking.store and tracking.artifacts"), 1);
        }
        catch (OperationCanceledException)
        {
            return 130;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return Report(json, new UserFault(e.Message), 1);
        }
        catch (Exception e) when (Environment.GetEnvironmentVariable("MEMOPT_TRACE") is null)
        {
            var message = e is ExternalException or InvalidOperationException ? e.Message.Split('\n')[0] : $"{e.GetType().Name}: {e.Message.Split('\n')[0]}";
            return Report(json, new UserFault("Something went wrong that should not have.", found: message, next: "run again with MEMOPT_TRACE=1 and report what it prints"), 1);
        }
    }

    public static void Print<T>(T value) => Console.Out.WriteLine(JsonSerializer.Serialize(value, Json));

    public static Option<bool> OfflineOption() => new("--offline") { Description = "Take models from the cache and ask no server." };

    /// <summary>Where models come from and are kept, by the variables that Hugging Face's, ModelScope's and Azure's own tools read.</summary>
    public static HubSettings HubSettings(bool offline)
    {
        static string? Variable(params string[] names) => names.Select(Environment.GetEnvironmentVariable).FirstOrDefault(value => !string.IsNullOrWhiteSpace(value));
        static Uri Address(string variable, string standard) => Uri.TryCreate((Variable(variable) ?? standard).TrimEnd('/') + "/", UriKind.Absolute, out var address) && address.Scheme is "http" or "https" ? address
            : throw new UserFault($"{variable} is not an address.", found: Variable(variable), next: $"set it to {standard}, or unset it");
        var cache = Variable("XDG_CACHE_HOME") ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache");
        var home = Variable("HF_HOME") ?? Path.Combine(cache, "huggingface");
        var tokenFile = Variable("HF_TOKEN_PATH") ?? Path.Combine(home, "token");
        return new()
        {
            Endpoint = Address("HF_ENDPOINT", "https://huggingface.co"),
            Token = (Variable("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") ?? (File.Exists(tokenFile) ? File.ReadAllText(tokenFile) : null))?.Trim(),
            HubCache = Path.GetFullPath(Variable("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") ?? Path.Combine(home, "hub")),
            OwnCache = Path.GetFullPath(Path.Combine(cache, "memopt", "models")),
            ModelScope = Address("MODELSCOPE_ENDPOINT", "https://modelscope.cn"),
            ModelScopeToken = Variable("MODELSCOPE_API_TOKEN"),
            AzureSas = Variable("AZURE_STORAGE_SAS_TOKEN"),
            AzureToken = AzureTokenAsync,
            Offline = offline || Variable("HF_HUB_OFFLINE")?.ToUpperInvariant() is "1" or "TRUE" or "YES" or "ON",
            Program = AppContext.BaseDirectory,
        };
    }

    private static async ValueTask<string> AzureTokenAsync(CancellationToken stop)
    {
        try
        {
            return await new AzureLogin().TokenAsync(stop).ConfigureAwait(false);
        }
        catch (TrackingException e)
        {
            throw new UserFault("Azure storage needs a login.", found: e.Message, next: "az login, or set AZURE_STORAGE_SAS_TOKEN; a public container is read by its https:// address", inner: e);
        }
    }

    /// <summary>Where libtorch may be.</summary>
    public static BackendEnvironment BackendEnvironment(string? project = null)
    {
        var home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        return new(Environment.GetEnvironmentVariable("MEMOPT_LIBTORCH"),
            Environment.GetEnvironmentVariable("NUGET_PACKAGES") ?? Path.Combine(home, ".nuget", "packages"),
            project ?? Directory.GetCurrentDirectory(),
            Path.Combine(Environment.GetEnvironmentVariable("XDG_CACHE_HOME") ?? Path.Combine(home, ".cache"), "memopt"));
    }

    /// <summary>Variables that can change what a training does, for its record; the store leaves secrets out.</summary>
    public static IEnumerable<KeyValuePair<string, string>> Variables()
    {
        string[] beginnings = ["MEMOPT_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "PYTORCH_", "TORCH_", "DOTNET_gc", "DOTNET_Tiered", "HF_", "SLURM_JOB", "LD_LIBRARY_PATH", "LD_PRELOAD"];
        return Environment.GetEnvironmentVariables().Cast<System.Collections.DictionaryEntry>().Select(item => KeyValuePair.Create("env." + item.Key, (string?)item.Value ?? ""))
            .Where(item => beginnings.Any(beginning => item.Key.StartsWith("env." + beginning, StringComparison.Ordinal))).OrderBy(item => item.Key, StringComparer.Ordinal);
    }

    /// <summary>Git commit of a folder and whether it has changes; nulls outside a repository or without git.</summary>
    public static (string? Commit, bool Dirty) Git(string folder)
    {
        var commit = Run("git", folder, "rev-parse", "HEAD");
        return (commit, commit is not null && !string.IsNullOrEmpty(Run("git", folder, "status", "--porcelain", "--untracked-files=no")));
    }

    private static string? Run(string program, string folder, params string[] arguments)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo(program, arguments) { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true })!;
            var output = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0 ? output.Trim() : null;
        }
        catch (Exception e) when (e is System.ComponentModel.Win32Exception or IOException)
        {
            return null;
        }
    }

    private static int Report(bool json, UserFault fault, int code)
    {
        if (json)
        {
            Print(new { error = new { message = fault.Message, found = fault.Found, next = fault.Next, problems = fault.Problems } });
        }
        Progress.MarkupLineInterpolated($"[red]{(fault.Problems.Count > 0 ? "problem" : "error")}:[/] {fault.Message}");
        foreach (var problem in fault.Problems.Take(50))
        {
            // The form that MSBuild and editors read: file(line,column): error CODE: text.
            var at = problem.File is null ? "memopt" : problem.Line > 0 ? $"{problem.File}({problem.Line},{Math.Max(1, problem.Column)})" : problem.File;
            Progress.WriteLine($"{at}: error {problem.Code}: {problem.Path} {problem.Message}");
        }
        if (fault.Found is not null && fault.Problems.Count == 0)
            Progress.WriteLine($"  found: {fault.Found}");
        if (fault.Next is not null)
            Progress.WriteLine($"  next:  {fault.Next}");
        return code;
    }

    private static IAnsiConsole Wide(bool redirected, IAnsiConsole console)
    {
        if (redirected)
            console.Profile.Width = 200;
        return console;
    }
}
