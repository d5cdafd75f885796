using System;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Text.RegularExpressions;
using Microsoft.Build.Framework;
using Microsoft.Build.Utilities;

namespace Memopt.Build;

/// <summary>The version of the tool that a folder's tool manifest pins.</summary>
/// <param name="folder">Where the manifest is, or below it.</param>
/// <param name="version">The version.</param>
/// <param name="packageFolders">The project's folders of packages.</param>
internal sealed class PinnedTool(string folder, string version, string[] packageFolders)
{
    /// <summary>The version in the nearest manifest; null when none names the tool.</summary>
    public static string? Version(string folder)
    {
        for (var at = Path.GetFullPath(folder); at is not null; at = Path.GetDirectoryName(at))
        {
            foreach (
                var file in new[]
                {
                    Path.Combine(at, ".config", "dotnet-tools.json"),
                    Path.Combine(at, "dotnet-tools.json"),
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

    /// <summary>The path of the tool's program; null when it is not restored.</summary>
    public string? Restored()
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
        return packageFolders
            .Append(user)
            .Select(packages => Path.Combine(packages, "memopt", version.ToLowerInvariant()))
            .Where(package => File.Exists(Path.Combine(package, ".nupkg.metadata")))
            .SelectMany(package =>
                Directory.EnumerateFiles(Path.Combine(package, "tools"), "memopt.dll", SearchOption.AllDirectories)
            )
            .FirstOrDefault();
    }

    /// <summary>Restores the tool and gives its path. One project of a parallel build restores, the others wait for it:
    /// two restores at once get in each other's way.</summary>
    /// <param name="log">Receives the progress.</param>
    /// <param name="fail">Receives why it cannot be restored.</param>
    public string? Restore(TaskLoggingHelper log, Action<string> fail)
    {
        using var one = BuildLock.Acquire(
            Path.Combine(Path.GetTempPath(), $"memopt-restore-{Environment.UserName}.lock")
        );
        if (Restored() is { } already)
            return already;
        log.LogMessage(MessageImportance.High, "memopt: restoring the tool");
        using var restore = Process.Start(
            new ProcessStartInfo(HostProgram.Dotnet, "tool restore")
            {
                WorkingDirectory = folder,
                UseShellExecute = false,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        var errors = restore.StandardError.ReadToEndAsync();
        log.LogMessage(MessageImportance.Low, restore.StandardOutput.ReadToEnd() + errors.Result);
        restore.WaitForExit();
        if (restore.ExitCode != 0)
            fail($"The memopt tool cannot be restored: {errors.Result.Trim()}");
        return Restored();
    }
}
