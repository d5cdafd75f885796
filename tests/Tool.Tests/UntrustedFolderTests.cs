using System.Diagnostics;
using System.Text.Json.Nodes;

namespace Memopt.Tool.Tests;

/// <summary>The tool in a folder that a stranger made.</summary>
public sealed class UntrustedFolderTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt-trust-").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public void Doctor_loads_and_starts_nothing_of_the_folder_that_it_runs_in()
    {
        // Were any of these taken, the tool would find a "libtorch" in this folder, or the file "ran" would be there.
        foreach (
            var place in new[]
            {
                "pk/libtorch-zz/2.10.0/runtimes/linux-x64/native",
                "torch/lib",
                ".nuget/packages/libtorch-cpu-linux-x64/2.10.0/runtimes/linux-x64/native",
            }
        )
            Write(Path.Combine(place, "libtorch_cpu.so"), "");
        Write("obj/project.assets.json", """{"libraries":{"libtorch-zz/2.10.0":{}},"packageFolders":{"pk":{}}}""");
        Write("torch/__init__.py", $"open('{Path.Combine(folder, "ran")}', 'w')");
        foreach (var program in new[] { "python3", "git", "xdg-open", "kill" })
            Script(program);
        var doctor = Run(Path.Combine(folder, "no-packages"), "doctor", "--json");
        Assert.Equal(1, doctor.Exit);
        Assert.NotEmpty(doctor.Json["candidates"]!.AsArray());
        Assert.DoesNotContain(
            doctor.Json["candidates"]!.AsArray(),
            found => ((string?)found!["folder"])?.StartsWith(folder, StringComparison.Ordinal) == true
        );
        Assert.False(File.Exists(Path.Combine(folder, "ran")));
    }

    [Fact]
    public void Training_starts_no_git_of_its_folder_and_no_program_of_the_repository()
    {
        var work = Cli.NewProject();
        try
        {
            foreach (
                var arguments in new[]
                {
                    "init -q",
                    "add .",
                    "-c user.name=a -c user.email=a@example.org commit -qm first",
                    $"config core.fsmonitor {Script("program")}",
                }
            )
            {
                using var git = Process.Start(new ProcessStartInfo("git", arguments) { WorkingDirectory = work })!;
                git.WaitForExit();
            }
            File.Copy(Script("program"), Path.Combine(work, "git"));
            var done = Cli.Run(work, "run", "--set", "train.steps=1", "--json");
            Assert.True(done.Exit == 0, done.Error);
            Assert.Matches(
                "^[0-9a-f]{40}$",
                (string?)Cli.Run(work, "runs", "show", (string)done.Json["runId"]!, "--json").Json["gitCommit"]
            );
            Assert.False(File.Exists(Path.Combine(folder, "ran")));
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }
    }

    private void Write(string file, string content)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(folder, file))!);
        File.WriteAllText(Path.Combine(folder, file), content);
    }

    private string Script(string name)
    {
        Write(name, $"#!/bin/sh\n: > '{Path.Combine(folder, "ran")}'\necho {folder}/torch/lib\n");
        if (!OperatingSystem.IsWindows())
            File.SetUnixFileMode(
                Path.Combine(folder, name),
                UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
            );
        return Path.Combine(folder, name);
    }

    private Outcome Run(string packages, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", ["exec", Cli.Tool, .. arguments])
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["NUGET_PACKAGES"] = packages;
        start.Environment["PYTHONPATH"] = folder;
        start.Environment["PATH"] = "." + Path.PathSeparator + start.Environment["PATH"];
        start.Environment.Remove("MEMOPT_LIBTORCH");
        using var process = Process.Start(start)!;
        return Cli.Wait(process);
    }
}
