using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using Microsoft.Build.Framework;
using Microsoft.Build.Utilities;

namespace Memopt.Build;

/// <summary>Runs the memopt tool as a process of its own, so that libtorch is never loaded into MSBuild. Problems that
/// the tool prints as <c>file(line,column): error CODE: message</c> become errors and warnings of the build at that
/// place; what else it prints goes to the binary log, with a line of progress now and then for people.
/// </summary>
public class MemoptTool : ToolTask
{
    private static readonly Regex problem = new(
        @"^(?<file>.*?)(\((?<line>\d+),(?<column>\d+)\))?: (?<kind>error|warning) (?<code>MEMOPT\d{4}): (?<text>.*)$"
    );
    private static readonly Regex fault = new(@"^(error:|  (?<label>found|next):) +(?<text>.*)$");

    private readonly List<string> faults = [];
    private readonly Stopwatch sinceProgress = Stopwatch.StartNew();
    private Process? process;
    private string? tool;
    private bool cancelled;

    /// <summary>Verb and arguments, each an argument of its own.</summary>
    [Required]
    public string[] Arguments { get; set; } = [];

    /// <summary>Settings in place of the config's, <c>section.setting=value</c> with <c>;</c> between.</summary>
    public string Set { get; set; } = "";

    /// <summary>Folder the tool runs in; its tool manifest, or one above, says which version.</summary>
    [Required]
    public string Folder { get; set; } = "";

    /// <summary>How the tool is started, program first, in place of the version that the tool manifest pins.</summary>
    public string Command
    {
        get;
        set => field = value.Trim();
    } = "";

    /// <summary>The project's folders of packages, its own and those it falls back on, where restored tools
    /// lie.</summary>
    public string[] PackageFolders { get; set; } = [];

    /// <summary>Where the codes are explained; the code is added behind.</summary>
    public string HelpLink { get; set; } = "";

    /// <summary>Seconds a cancelled tool gets to write a checkpoint before it is killed.</summary>
    public int CancelTimeoutSeconds { get; set; } = 60;

    /// <summary>Seconds between two lines of progress.</summary>
    public int ProgressEvery { get; set; } = 30;

    /// <summary>What the verb was for, its first argument; empty when the tool did not run to its end.</summary>
    [Output]
    public string Done { get; private set; } = "";

    /// <summary>Warnings that the tool printed, as it printed them.</summary>
    protected List<string> Warnings { get; } = [];

    protected override string ToolName => "dotnet";

    protected override MessageImportance StandardErrorLoggingImportance => MessageImportance.Low;

    protected override MessageImportance StandardOutputLoggingImportance => MessageImportance.Low;

    private static string Dotnet =>
        Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } host ? host : OnPath("dotnet");

    /// <summary>The full path of a program. By its name alone, one in the current folder would be taken
    /// first.</summary>
    private static string OnPath(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "")
            .Split(Path.PathSeparator)
            .Where(folder => folder.Length > 0 && Path.IsPathRooted(folder))
            .Select(folder =>
                Path.Combine(folder, RuntimeInformation.IsOSPlatform(OSPlatform.Windows) ? program + ".exe" : program)
            )
            .FirstOrDefault(File.Exists)
        ?? throw new FileNotFoundException($"{program} is in no folder of PATH.");

    /// <summary>The first word of <see cref="Command"/>, which may be quoted.</summary>
    private (string Program, string Before) Given
    {
        get
        {
            var quoted = Command[0] == '"';
            var end = quoted ? Command.IndexOf('"', 1) : Command.IndexOf(' ');
            return end < 0
                ? (Command, "")
                : (Command.Substring(quoted ? 1 : 0, quoted ? end - 1 : end), Command.Substring(end + 1).Trim() + " ");
        }
    }

    protected override string GenerateFullPathToTool() => Command.Length > 0 ? Given.Program : Dotnet;

    protected override string GenerateCommandLineCommands()
    {
        // The program itself and not `dotnet memopt`, which starts it as a child of its own and keeps an interrupt from
        // it.
        var before =
            Command.Length > 0 ? Given.Before
            : tool is not null ? $"exec {Quoted(tool)} "
            : "memopt ";
        var changes = Set.Split(';')
            .Select(change => change.Trim())
            .Where(change => change.Length > 0)
            .SelectMany(change => new[] { "--set", change });
        return before
            + string.Join(" ", Arguments.Concat(changes).Where(argument => argument.Length > 0).Select(Quoted));
    }

    protected override string GetWorkingDirectory() => Folder;

    protected override Process StartToolProcess(Process proc) => process = base.StartToolProcess(proc);

    protected override int ExecuteTool(string pathToTool, string responseFileCommands, string commandLineCommands)
    {
        try
        {
            return base.ExecuteTool(pathToTool, responseFileCommands, commandLineCommands);
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            Log.LogError(
                null,
                "MEMOPT0015",
                null,
                Help("MEMOPT0015"),
                null,
                0,
                0,
                0,
                0,
                $"{pathToTool} cannot be started: {e.Message}"
            );
            return -1;
        }
    }

    public override bool Execute()
    {
        var version = Command.Length == 0 ? Manifest() : null;
        if (Command.Length == 0 && version is null)
        {
            Log.LogError(
                null,
                "MEMOPT0015",
                null,
                Help("MEMOPT0015"),
                null,
                0,
                0,
                0,
                0,
                $"The memopt tool is in no tool manifest of {Folder} or above it: dotnet new tool-manifest && "
                    + "dotnet tool install memopt"
            );
            return false;
        }
        if (version is not null)
            tool = Restored(version) ?? Restore(version);
        // With which the tool ends, and where it may look for libtorch: who builds a project trusts the folders that it
        // names.
        EnvironmentVariables =
        [
            .. EnvironmentVariables ?? [],
            $"MEMOPT_BUILD={Process.GetCurrentProcess().Id}",
            $"MEMOPT_PACKAGES={string.Join($"{Path.PathSeparator}", PackageFolders)}",
        ];
        var done = !Log.HasLoggedErrors && base.Execute();
        Done = done && Arguments.Length > 1 ? Arguments[1] : "";
        return done;
    }

    /// <summary>A signal first, so that the tool stops after its step and leaves a checkpoint: SIGTERM, as SIGINT is
    /// ignored by what a shell has started in the background.</summary>
    public override void Cancel()
    {
        cancelled = true;
        try
        {
            if (process is { HasExited: false } running && !RuntimeInformation.IsOSPlatform(OSPlatform.Windows))
            {
                using var signal = Process.Start(
                    new ProcessStartInfo(OnPath("kill"), $"-TERM {running.Id}") { UseShellExecute = false }
                );
                signal?.WaitForExit();
                running.WaitForExit(CancelTimeoutSeconds * 1000);
            }
        }
        catch (Exception e)
            when (e is InvalidOperationException or System.ComponentModel.Win32Exception or FileNotFoundException)
        {
            // It has ended meanwhile, or there is no kill: the base class ends it.
        }
        base.Cancel();
    }

    protected override void LogEventsFromTextOutput(string singleLine, MessageImportance messageImportance)
    {
        if (problem.Match(singleLine) is { Success: true } match)
        {
            Report(match);
            return;
        }
        if (fault.Match(singleLine) is { Success: true } part)
            faults.Add(
                part.Groups["label"].Success
                    ? $"({part.Groups["label"].Value}: {part.Groups["text"].Value})"
                    : part.Groups["text"].Value
            );
        Said(singleLine);
        var now = new[] { "waiting ", "resume ", "done ", "stopping ", "finished " }.Any(stage =>
            singleLine.StartsWith(stage, StringComparison.Ordinal)
        );
        if (
            singleLine.StartsWith("step ", StringComparison.Ordinal)
            && sinceProgress.Elapsed.TotalSeconds >= ProgressEvery
        )
        {
            now = true;
            sinceProgress.Restart();
        }
        Log.LogMessage(now ? MessageImportance.High : messageImportance, now ? $"memopt: {singleLine}" : singleLine);
    }

    /// <summary>Told of each line that the tool prints and that is no problem.</summary>
    protected virtual void Said(string line) { }

    protected override bool HandleTaskExecutionErrors()
    {
        if (cancelled || Log.HasLoggedErrors)
            return false;
        var (code, text) =
            ExitCode == 130
                ? ("MEMOPT0016", "Training was stopped and has left a checkpoint: build again to go on.")
                : (
                    "MEMOPT0014",
                    faults.Count > 0
                        ? string.Join(" ", faults)
                        : $"memopt {Arguments.FirstOrDefault()} ended with exit code {ExitCode}; the binary log "
                            + "(-bl) has what it printed."
                );
        Log.LogError(null, code, null, Help(code), null, 0, 0, 0, 0, text);
        return false;
    }

    /// <summary>Logs a line that has the form of a problem.</summary>
    protected void Report(string line)
    {
        if (problem.Match(line) is { Success: true } match)
            Report(match);
    }

    private void Report(Match match)
    {
        int Number(string group) => int.TryParse(match.Groups[group].Value, out var number) ? number : 0;
        var (file, code, text) = (match.Groups["file"].Value, match.Groups["code"].Value, match.Groups["text"].Value);
        file = file == "memopt" ? null : Path.Combine(Folder, file);
        if (match.Groups["kind"].Value == "error")
        {
            Log.LogError(null, code, null, Help(code), file, Number("line"), Number("column"), 0, 0, text);
            return;
        }
        Warnings.Add(match.Value);
        Log.LogWarning(null, code, null, Help(code), file, Number("line"), Number("column"), 0, 0, text);
    }

    private string? Help(string code) => HelpLink.Length > 0 ? HelpLink + code.ToLowerInvariant() : null;

    /// <summary>The version that a tool manifest pins, nearest first.</summary>
    private string? Manifest()
    {
        for (var folder = Path.GetFullPath(Folder); folder is not null; folder = Path.GetDirectoryName(folder))
        {
            foreach (
                var file in new[]
                {
                    Path.Combine(folder, ".config", "dotnet-tools.json"),
                    Path.Combine(folder, "dotnet-tools.json"),
                }.Where(File.Exists)
            )
            {
                if (
                    Regex.Match(
                        File.ReadAllText(file),
                        @"""memopt""\s*:\s*\{[^}]*""version""\s*:\s*""(?<version>[^""]+)""",
                        RegexOptions.IgnoreCase
                    ) is
                    { Success: true } match
                )
                    return match.Groups["version"].Value;
            }
        }
        return null;
    }

    private string? Restored(string version)
    {
        // `dotnet tool restore` leaves a tool that it has once restored where that was, for a project that keeps its
        // packages elsewhere too.
        var user = Environment.GetEnvironmentVariable("NUGET_PACKAGES") is { Length: > 0 } set
            ? set
            : Path.Combine(
                Environment.GetFolderPath(
                    Environment.SpecialFolder.UserProfile,
                    Environment.SpecialFolderOption.DoNotVerify
                ),
                ".nuget",
                "packages"
            );
        // NuGet writes this file last.
        return PackageFolders
            .Append(user)
            .Select(folder => Path.Combine(folder, "memopt", version.ToLowerInvariant()))
            .Where(package => File.Exists(Path.Combine(package, ".nupkg.metadata")))
            .SelectMany(package =>
                Directory.EnumerateFiles(Path.Combine(package, "tools"), "memopt.dll", SearchOption.AllDirectories)
            )
            .FirstOrDefault();
    }

    /// <summary>One project of a parallel build restores, the others wait for it: two restores at once get in each
    /// other's way.</summary>
    private string? Restore(string version)
    {
        using var one = Locked(Path.Combine(Path.GetTempPath(), $"memopt-restore-{Environment.UserName}.lock"));
        if (Restored(version) is { } already)
            return already;
        Log.LogMessage(MessageImportance.High, "memopt: restoring the tool");
        using var restore = Process.Start(
            new ProcessStartInfo(Dotnet, "tool restore")
            {
                WorkingDirectory = Folder,
                UseShellExecute = false,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        var errors = restore.StandardError.ReadToEndAsync();
        Log.LogMessage(MessageImportance.Low, restore.StandardOutput.ReadToEnd() + errors.Result);
        restore.WaitForExit();
        if (restore.ExitCode != 0)
            Log.LogError(
                null,
                "MEMOPT0015",
                null,
                Help("MEMOPT0015"),
                null,
                0,
                0,
                0,
                0,
                $"The memopt tool cannot be restored: {errors.Result.Trim()}"
            );
        return Restored(version);
    }

    /// <summary>Held by one build at a time; null when it cannot be had.</summary>
    protected static FileStream? Locked(string file)
    {
        for (var waited = Stopwatch.StartNew(); waited.Elapsed.TotalMinutes < 5; System.Threading.Thread.Sleep(100))
        {
            try
            {
                return new FileStream(file, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException)
            {
                // Held by another project's build.
            }
            catch (UnauthorizedAccessException)
            {
                return null;
            }
        }
        return null;
    }

    /// <summary>An argument as programs take it apart again: quotes around it, and a backslash before quotes in it and
    /// before those backslashes that stand before a quote.</summary>
    private static string Quoted(string argument)
    {
        if (argument.Length > 0 && argument.All(c => char.IsLetterOrDigit(c) || "-_./=:".Contains(c)))
            return argument;
        var quoted = new StringBuilder("\"");
        var slashes = 0;
        foreach (var c in argument)
        {
            slashes = c == '\\' ? slashes + 1 : 0;
            if (c == '"')
                quoted.Append('\\', Trailing(quoted) + 1);
            quoted.Append(c);
        }
        return quoted.Append('\\', slashes).Append('"').ToString();

        static int Trailing(StringBuilder text)
        {
            var count = 0;
            while (count < text.Length && text[text.Length - 1 - count] == '\\')
                count++;
            return count;
        }
    }
}
