using System;
using System.Diagnostics;
using System.Runtime.InteropServices;
using Microsoft.Build.Framework;
using Microsoft.Build.Utilities;

namespace Memopt.Build;

/// <summary>
/// Runs the memopt tool as a process of its own, so that libtorch is never loaded into MSBuild. The tool prints problems of a config as
/// <c>file(line,column): error CODE: message</c>, which MSBuild turns into errors at that place.
/// </summary>
public sealed class MemoptTool : ToolTask
{
    private Process? process;

    /// <summary>Verb and arguments.</summary>
    [Required]
    public string Arguments { get; set; } = "";

    /// <summary>Folder the tool runs in.</summary>
    [Required]
    public string Folder { get; set; } = "";

    /// <summary>How the tool is started, program first; <c>dotnet memopt</c> from the local tool manifest when left out.</summary>
    public string Command { get; set; } = "";

    /// <summary>Seconds a cancelled tool gets to write a checkpoint before it is killed.</summary>
    public int Grace { get; set; } = 30;

    protected override string ToolName => Split().Program;

    protected override MessageImportance StandardErrorLoggingImportance => MessageImportance.Normal;

    protected override MessageImportance StandardOutputLoggingImportance => MessageImportance.Normal;

    protected override string GenerateFullPathToTool() => Split().Program;

    protected override string GenerateCommandLineCommands() => Split().Before + Arguments;

    protected override string GetWorkingDirectory() => Folder;

    protected override Process StartToolProcess(Process proc) => process = base.StartToolProcess(proc);

    /// <summary>An interrupt first, so that the tool stops after its step and leaves a checkpoint.</summary>
    public override void Cancel()
    {
        try
        {
            if (process is { HasExited: false } running && !RuntimeInformation.IsOSPlatform(OSPlatform.Windows))
            {
                using var signal = Process.Start(new ProcessStartInfo("kill", $"-INT {running.Id}") { UseShellExecute = false });
                signal?.WaitForExit();
                running.WaitForExit(Grace * 1000);
            }
        }
        catch (Exception e) when (e is InvalidOperationException or System.ComponentModel.Win32Exception)
        {
            // It has ended meanwhile, or there is no kill: the base class ends it.
        }
        base.Cancel();
    }

    private (string Program, string Before) Split()
    {
        var command = Command.Trim();
        if (command.Length == 0)
            return (Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } host ? host : "dotnet", "memopt ");
        var quoted = command[0] == '"';
        var end = quoted ? command.IndexOf('"', 1) : command.IndexOf(' ');
        return end < 0 ? (command, "") : (command.Substring(quoted ? 1 : 0, quoted ? end - 1 : end), command.Substring(end + 1).Trim() + " ");
    }
}
