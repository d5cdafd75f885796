using System.Diagnostics;

namespace Memopt.Tool.Tests;

/// <summary>Where models are kept, by the variables that huggingface_hub reads, expanded as it does with Python's
/// expanduser and expandvars.</summary>
public sealed class CacheFolderTests
{
    [Theory]
    [InlineData("HOME", "TOP/nobody", "~/.cache/huggingface/hub")]
    [InlineData("HF_HOME", "~/x", "~/x/hub")]
    [InlineData("HF_HOME", "~root/x", "~root/x/hub")]
    [InlineData("HF_HOME", "/a/$WHO/${WHO}/$NOT", "/a/$WHO/${WHO}/$NOT/hub")]
    [InlineData("HF_HUB_CACHE", "~/y", "~/y")]
    [InlineData("XDG_CACHE_HOME", "~/z", "~/z/huggingface/hub")]
    public void Cache_folder_from_variables_equals_that_of_huggingface_hub(
        string variable,
        string value,
        string expected
    )
    {
        var top = Directory.CreateTempSubdirectory("memopt").FullName;
        var surroundings = new Dictionary<string, string?>
        {
            ["HOME"] = Path.Combine(top, "home"),
            ["WHO"] = "me",
            ["HF_HOME"] = null,
            ["HF_HUB_CACHE"] = null,
            ["HUGGINGFACE_HUB_CACHE"] = null,
            ["XDG_CACHE_HOME"] = null,
            ["NOT"] = null,
            [variable] = value.Replace("TOP", top),
        };
        var python = Output(
            top,
            surroundings,
            "python3",
            "-c",
            "import os,sys; print(os.path.expandvars(os.path.expanduser(sys.argv[1])))",
            expected
        )
            .Output.Trim();
        var outcome = Output(top, surroundings, "dotnet", "exec", Cli.Tool, "pull", "org/name", "--offline", "--json");
        Assert.Equal(1, outcome.Exit);
        Assert.StartsWith(
            python + "/",
            (string)outcome.Json["error"]!["found"]!.ToString().Replace("missing in ", "")!
        );
        Assert.DoesNotContain(".cache", Directory.EnumerateFileSystemEntries(top).Select(Path.GetFileName));
        Directory.Delete(top, recursive: true);
    }

    private static Outcome Output(
        string folder,
        Dictionary<string, string?> surroundings,
        string program,
        params string[] arguments
    )
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var (name, value) in surroundings)
            start.Environment[name] = value;
        using var process = Process.Start(start)!;
        return Cli.Wait(process);
    }
}
