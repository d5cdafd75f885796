using System.Diagnostics;

namespace Memopt.Core.Tests;

/// <summary>A repository whose own configuration names programs: each would leave a file called "ran" beside
/// it.</summary>
public sealed class GitTests : IDisposable
{
    private readonly string root = Directory.CreateTempSubdirectory("memopt-git-").FullName;

    public GitTests()
    {
        foreach (var folder in new[] { "work", "inner" })
        {
            Directory.CreateDirectory(Path.Combine(root, folder));
            File.WriteAllText(Path.Combine(root, folder, "a.txt"), "one\n");
            Run(folder, "init", "-q");
            Run(folder, "add", ".");
            Run(folder, "commit", "-qm", "first");
        }
    }

    public void Dispose() => Directory.Delete(root, recursive: true);

    [Theory]
    [InlineData("core.fsmonitor", "PROGRAM")]
    [InlineData("diff.external", "PROGRAM")]
    [InlineData("core.pager", "PROGRAM")]
    [InlineData("filter.x.clean", "PROGRAM")]
    [InlineData("filter.x.process", "PROGRAM")]
    [InlineData("filter.X.y.clean", "PROGRAM", "filter.X.y.required", "true")]
    [InlineData("diff.x.textconv", "PROGRAM")]
    [InlineData("diff.x.command", "PROGRAM")]
    public void Program_named_by_a_repository_is_not_started(params string[] settings)
    {
        var work = Path.Combine(root, "work");
        if (settings[0].Count(c => c == '.') > 1)
            File.WriteAllText(
                Path.Combine(work, ".gitattributes"),
                $"*.txt {settings[0][..settings[0].IndexOf('.')]}="
                    + $"{settings[0][(settings[0].IndexOf('.') + 1)..settings[0].LastIndexOf('.')]}\n"
            );
        foreach (var setting in settings.Chunk(2))
            Run("work", "config", setting[0], setting[1].Replace("PROGRAM", Program()));
        Changed();
    }

    [Fact]
    public void Hooks_of_a_repository_are_not_started()
    {
        foreach (var hook in new[] { "post-index-change", "pre-auto-gc", "reference-transaction" })
            File.Copy(Program(), Path.Combine(root, "work", ".git", "hooks", hook));
        Changed();
    }

    [Fact]
    public void Filters_named_by_an_included_or_worktree_configuration_are_not_started()
    {
        File.WriteAllText(Path.Combine(root, "work", ".gitattributes"), "*.txt filter=x\n");
        File.WriteAllText(Path.Combine(root, "work", "more"), $"[filter \"x\"]\n\tclean = {Program()}\n");
        Run("work", "config", "include.path", "../more");
        Run("work", "config", "extensions.worktreeConfig", "true");
        Run("work", "config", "--worktree", "filter.y.clean", Program());
        File.AppendAllText(Path.Combine(root, "work", ".gitattributes"), "a.txt filter=y\n");
        Changed();
    }

    [Fact]
    public void Filter_that_cannot_be_disabled_keeps_git_from_starting()
    {
        File.WriteAllText(Path.Combine(root, "work", ".gitattributes"), "*.txt filter=a=b\n");
        File.AppendAllText(Path.Combine(root, "work", ".git", "config"), $"[filter \"a=b\"]\n\tclean = {Program()}\n");
        File.WriteAllText(Path.Combine(root, "work", "a.txt"), "two\n");
        Assert.Equal((null, false), Commit(Path.Combine(root, "work")));
        Assert.Null(GitChanges.Of(Path.Combine(root, "work")));
        Assert.False(File.Exists(Path.Combine(root, "ran")));
    }

    [Fact]
    public void Submodule_that_names_programs_starts_none()
    {
        Run("work", "-c", "protocol.file.allow=always", "submodule", "add", "-q", Path.Combine(root, "inner"), "inner");
        Run("work", "commit", "-qm", "inner");
        Run("work/inner", "config", "core.fsmonitor", Program());
        Run("work", "config", "status.submoduleSummary", "true");
        Run("work", "config", "diff.submodule", "diff");
        File.WriteAllText(Path.Combine(root, "work", "inner", "a.txt"), "changed\n");
        Changed();
    }

    [Fact]
    public void Partial_clone_with_a_missing_object_fetches_nothing()
    {
        Run("work", "config", "remote.far.url", "ext::" + Program());
        Run("work", "config", "remote.far.promisor", "true");
        Run("work", "config", "extensions.partialClone", "far");
        Run("work", "config", "protocol.ext.allow", "always");
        Run("work", "config", "core.repositoryFormatVersion", "1");
        File.WriteAllText(Path.Combine(root, "work", "a.txt"), "two\n");
        var blob = Ask("work", "rev-parse", "HEAD:a.txt").Trim();
        File.Delete(Path.Combine(root, "work", ".git", "objects", blob[..2], blob[2..]));
        Commit(Path.Combine(root, "work"));
        Assert.Null(GitChanges.Of(Path.Combine(root, "work")));
        Assert.False(File.Exists(Path.Combine(root, "ran")));
    }

    [Fact]
    public void Worktree_outside_the_repository_is_not_read()
    {
        Directory.CreateDirectory(Path.Combine(root, "home", "clone"));
        File.WriteAllText(Path.Combine(root, "home", "a.txt"), "a secret\n");
        Directory.Move(Path.Combine(root, "work", ".git"), Path.Combine(root, "home", "clone", ".git"));
        Run("home/clone", "config", "core.worktree", Path.Combine(root, "home"));
        Assert.Contains("a secret", Ask("home/clone", "diff", "HEAD"));
        Assert.Null(GitChanges.Of(Path.Combine(root, "home", "clone")));
    }

    [Fact]
    public void Program_path_is_absolute_or_null()
    {
        var found = ProgramPath.Find("git");
        Assert.True(Path.IsPathFullyQualified(found!), found);
        Assert.Null(ProgramPath.Find("no-such-program-of-this-name"));
    }

    /// <summary>A change is told as git tells it, and nothing of the repository's was started.</summary>
    private void Changed()
    {
        var work = Path.Combine(root, "work");
        File.WriteAllText(Path.Combine(work, "a.txt"), "two\n");
        var head = Ask("work", "rev-parse", "HEAD").Trim();
        File.Delete(Path.Combine(root, "ran")); // by git as the test runs it
        Assert.Equal((head, true), Commit(work));
        Assert.Contains("-one\n+two\n", GitChanges.Of(work));
        Assert.False(File.Exists(Path.Combine(root, "ran")));
    }

    /// <summary>The commit of a folder and whether it has changes, by the questions that a training asks.</summary>
    private static (string? Commit, bool Dirty) Commit(string folder)
    {
        var git = Git.In(folder);
        var commit = git?.Ask("rev-parse", "HEAD")?.Trim();
        return (
            commit,
            !string.IsNullOrEmpty(
                git?.Ask("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
            )
        );
    }

    private string Program()
    {
        var path = Path.Combine(root, "program");
        File.WriteAllText(path, $"#!/bin/sh\n: > '{Path.Combine(root, "ran")}'\ncat\n");
        if (!OperatingSystem.IsWindows())
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return path;
    }

    private void Run(string folder, params string[] arguments) => Ask(folder, arguments);

    private string Ask(string folder, params string[] arguments)
    {
        using var git = Process.Start(
            new ProcessStartInfo("git", ["-c", "user.name=a", "-c", "user.email=a@example.org", .. arguments])
            {
                WorkingDirectory = Path.Combine(root, folder),
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        var wrong = git.StandardError.ReadToEndAsync();
        var said = git.StandardOutput.ReadToEnd();
        git.WaitForExit();
        Assert.True(git.ExitCode == 0, wrong.Result);
        return said;
    }
}
