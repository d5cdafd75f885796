using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;

namespace Memopt.Trainer.Tests.Data;

/// <summary>Asks the JavaScript reference implementations in tests/oracles.</summary>
internal static class Oracle
{
    public static string Root { get; } = FindRoot();

    public static string Nano { get; } = Path.Combine(Root, "samples", "word-class", "model");

    public static JsonNode Ask(string script, string input, params string[] arguments)
    {
        var folder = Path.Combine(Root, "tests", "oracles");
        Assert.True(Directory.Exists(Path.Combine(folder, "node_modules")), "The oracles are not installed: run 'npm ci --ignore-scripts' in tests/oracles.");
        var start = new ProcessStartInfo("node", [script, .. arguments])
        {
            WorkingDirectory = folder,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var node = Process.Start(start)!;
        var errors = node.StandardError.ReadToEndAsync();
        var output = node.StandardOutput.ReadToEndAsync();
        node.StandardInput.Write(input);
        node.StandardInput.Close();
        node.WaitForExit();
        Assert.True(node.ExitCode == 0, $"node {script}: {errors.Result}");
        return JsonNode.Parse(output.Result)!;
    }

    private static string FindRoot([CallerFilePath] string file = "") => Path.GetFullPath(Path.Combine(Path.GetDirectoryName(file)!, "..", "..", ".."));
}
