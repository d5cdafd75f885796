using System.Diagnostics;
using Memopt.Trainer.Runs;

namespace Memopt.Trainer.Tests.Runs;

[Collection(ExclusiveCollection.Name)]
public sealed class ProcessEnvironmentTests : IDisposable
{
    private readonly string root = Directory.CreateTempSubdirectory("memopt-git-").FullName;

    public void Dispose() => Directory.Delete(root, recursive: true);

    /// <summary>The configuration of a repository and of its submodule names a program, which git starts when it looks
    /// for changes.</summary>
    [Fact]
    public void Commit_of_a_repository_is_read_without_starting_programs_that_it_names()
    {
        var (work, inner, ran) = (Path.Combine(root, "work"), Path.Combine(root, "inner"), Path.Combine(root, "ran"));
        foreach (var folder in new[] { work, inner })
        {
            Directory.CreateDirectory(folder);
            File.WriteAllText(Path.Combine(folder, "a.txt"), "one\n");
            Git(folder, "init", "-q");
            Git(folder, "add", ".");
            Git(folder, "commit", "-qm", "first");
        }
        Git(work, "-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "inner");
        Git(work, "commit", "-qm", "inner");
        var program = Path.Combine(root, "program");
        File.WriteAllText(program, $"#!/bin/sh\n: > '{ran}'\n");
        if (!OperatingSystem.IsWindows())
            File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Git(work, "config", "core.fsmonitor", program);
        Git(Path.Combine(work, "inner"), "config", "core.fsmonitor", program);
        File.WriteAllText(Path.Combine(work, "a.txt"), "two\n");
        File.WriteAllText(Path.Combine(work, "inner", "a.txt"), "two\n");
        Git(work, "status");
        Assert.True(File.Exists(ran), "git as a user starts it runs the program");
        File.Delete(ran);

        Assert.Equal(
            (Git(work, "-c", "core.fsmonitor=", "rev-parse", "HEAD").Trim(), true),
            ProcessEnvironment.Commit(work)
        );
        Assert.False(File.Exists(ran));
    }

    private static string Git(string folder, params string[] arguments)
    {
        using var git = Process.Start(
            new ProcessStartInfo("git", ["-c", "user.name=a", "-c", "user.email=a@example.org", .. arguments])
            {
                WorkingDirectory = folder,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        var errors = git.StandardError.ReadToEndAsync();
        var output = git.StandardOutput.ReadToEnd();
        git.WaitForExit();
        Assert.True(git.ExitCode == 0, errors.Result);
        return output;
    }
}
