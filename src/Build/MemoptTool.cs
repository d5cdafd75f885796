using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
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

    protected override string GenerateFullPathToTool() => Command.Length > 0 ? Given.Program : HostProgram.Dotnet;

    protected override string GenerateCommandLineCommands()
    {
        // The program itself and not `dotnet memopt`, which starts it as a child of its own and keeps an interrupt from
        // it.
        var before =
            Command.Length > 0 ? Given.Before
            : tool is not null ? $"exec {CommandLineText.Quoted(tool)} "
            : "memopt ";
        var changes = Set.Split(';')
            .Select(change => change.Trim())
            .Where(change => change.Length > 0)
            .SelectMany(change => new[] { "--set", change });
        return before
            + string.Join(
                " ",
                Arguments.Concat(changes).Where(argument => argument.Length > 0).Select(CommandLineText.Quoted)
            );
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
            Fail("MEMOPT0015", $"{pathToTool} cannot be started: {e.Message}");
            return -1;
        }
    }

    public override bool Execute()
    {
        if (Command.Length == 0 && !FindPinned())
            return false;
        // With which the tool ends, and where it may look for libtorch: who builds a project trusts the folders that it
        // names.
        EnvironmentVariables =
        [
            .. EnvironmentVariables ?? [],
            $"MEMOPT_BUILD={BuildProcess.Ids()}",
            $"MEMOPT_PACKAGES={string.Join($"{Path.PathSeparator}", PackageFolders)}",
        ];
        var done = !Log.HasLoggedErrors && base.Execute();
        Done = done && Arguments.Length > 1 ? Arguments[1] : "";
        return done;
    }

    /// <summary>Finds the tool that the manifest pins, or restores it; false when no manifest names it.</summary>
    private bool FindPinned()
    {
        if (PinnedTool.Version(Folder) is not { } version)
        {
            Fail(
                "MEMOPT0015",
                $"The memopt tool is in no tool manifest of {Folder} or above it: dotnet new tool-manifest && "
                    + "dotnet tool install memopt"
            );
            return false;
        }
        var pinned = new PinnedTool(Folder, version, PackageFolders);
        tool = pinned.Restored() ?? pinned.Restore(Log, text => Fail("MEMOPT0015", text));
        return true;
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
                    new ProcessStartInfo(HostProgram.OnPath("kill"), $"-TERM {running.Id}") { UseShellExecute = false }
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
        if (ProgressRecord.Parse(singleLine) is { } record)
        {
            Progressed(record);
            var shown = Shown(record);
            Log.LogMessage(shown ? MessageImportance.High : messageImportance, shown ? Line(record) : singleLine);
            return;
        }
        Log.LogMessage(messageImportance, singleLine);
    }

    private static string Line(ProgressRecord record) =>
        record.Event == ProgressRecord.StageEvent ? $"memopt: {record.Name}: {record.Text}" : $"memopt: {record.Text}";

    /// <summary>Given each record of the tool's progress.</summary>
    protected virtual void Progressed(ProgressRecord record) { }

    /// <summary>Whether people see a record: the stages that change what they wait for, and a step now and
    /// then.</summary>
    private bool Shown(ProgressRecord record)
    {
        if (record.Event == ProgressRecord.FinishedEvent)
            return true;
        if (record.Event == ProgressRecord.StageEvent)
            return record.Name is "waiting" or "resume" or "done" or "stopping";
        if (record.Event != ProgressRecord.StepEvent || sinceProgress.Elapsed.TotalSeconds < ProgressEvery)
            return false;
        sinceProgress.Restart();
        return true;
    }

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
        Fail(code, text);
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

    /// <summary>Logs an error that is at no place of a file.</summary>
    private void Fail(string code, string text) => Log.LogError(null, code, null, Help(code), null, 0, 0, 0, 0, text);

    private string? Help(string code) => HelpLink.Length > 0 ? HelpLink + code.ToLowerInvariant() : null;
}
