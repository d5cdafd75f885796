using System.ComponentModel;
using System.Diagnostics;
using System.Text;

namespace Memopt.Core;

/// <summary>Asks git about a folder's repository. The repository may be a stranger's: its configuration can name
/// programs that git starts (hooks, a file watcher, filters, remotes), so settings keep git from starting any. The
/// user's own configuration still applies.
/// </summary>
internal sealed class Git
{
    private const int All = 4 << 20;
    private static readonly TimeSpan patience = TimeSpan.FromMinutes(1);

    private readonly string program,
        folder;
    private readonly string[] settings;

    private Git(string program, string folder, IEnumerable<string> settings) =>
        (this.program, this.folder, this.settings) = (
            program,
            folder,
            [.. settings.SelectMany(setting => new[] { "-c", setting })]
        );

    /// <summary>git for a folder, or null where it is not installed, is older than 2.26, or cannot be made to start
    /// nothing.</summary>
    public static Git? In(string folder)
    {
        string[] quiet = ["core.fsmonitor=false", "core.hooksPath=/dev/null"];
        if (
            ProgramPath.Find("git") is not { } program
            || new Git(program, folder, quiet).Ask("config", "--list", "--show-scope", "--name-only", "-z")
                is not { } listed
        )
        {
            return null;
        }
        var words = listed.Split('\0');
        var filters = words
            .Zip(words.Skip(1))
            .Where((_, i) => i % 2 == 0)
            .Where(setting => setting.First is "local" or "worktree")
            .Select(setting => setting.Second)
            .Where(key => key.StartsWith("filter.", StringComparison.Ordinal) && key.Count(c => c == '.') > 1)
            .Select(key => key[..key.LastIndexOf('.')])
            .Distinct()
            .ToList();
        // -c ends a name at the first "=", so a filter with one in its name cannot be switched off.
        return filters.Exists(filter => filter.Contains('='))
            ? null
            : new(
                program,
                folder,
                [
                    .. quiet,
                    .. filters.SelectMany(filter =>
                        new[]
                        {
                            filter + ".clean=",
                            filter + ".smudge=",
                            filter + ".process=",
                            filter + ".required=false",
                        }
                    ),
                ]
            );
    }

    /// <summary>What git prints, up to 4 MiB and one character more where there is more; null when it fails or takes
    /// longer than a minute.</summary>
    public string? Ask(params string[] arguments)
    {
        var start = new ProcessStartInfo(program, ["--no-pager", .. settings, .. arguments])
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardOutputEncoding = Encoding.UTF8,
        };
        start.Environment["GIT_OPTIONAL_LOCKS"] = "0"; // no index is written, so no hook is due
        // a partial clone fetches what it lacks with a program that it names
        start.Environment["GIT_ALLOW_PROTOCOL"] = "none";
        start.Environment["GIT_NO_LAZY_FETCH"] = "1";
        start.Environment["GIT_TERMINAL_PROMPT"] = "0";
        try
        {
            using var process = Process.Start(start)!;
            using var limit = new CancellationTokenSource(patience);
            using var kill = limit.Token.Register(() => Kill(process));
            process.ErrorDataReceived += (_, _) => { };
            process.BeginErrorReadLine();
            var buffer = new char[All + 1];
            var length = process.StandardOutput.ReadBlock(buffer);
            if (length == buffer.Length)
            {
                Kill(process);
                return new(buffer);
            }
            process.WaitForExit();
            return process.ExitCode == 0 ? new(buffer, 0, length) : null;
        }
        catch (Exception e) when (e is Win32Exception or IOException)
        {
            return null;
        }
    }

    private static void Kill(Process process)
    {
        try
        {
            process.Kill(entireProcessTree: true);
        }
        catch (Exception e) when (e is InvalidOperationException or Win32Exception or AggregateException)
        {
            // It has ended.
        }
    }
}
