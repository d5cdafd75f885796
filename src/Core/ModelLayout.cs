namespace Memopt.Core;

/// <summary>The files of a model folder. Each file that a reader opens is declared here, and the files declared here
/// are pulled, hashed, watched and written beside merged weights. A model from a hub and the same model in a folder
/// therefore read alike.
/// </summary>
public static class ModelLayout
{
    public const string Config = "config.json",
        Generation = "generation_config.json";

    public const string Tokenizer = "tokenizer.json",
        TokenizerConfig = "tokenizer_config.json";

    public const string SpecialTokens = "special_tokens_map.json",
        Template = "chat_template.jinja";

    public const string Templates = "additional_chat_templates",
        ToolTemplate = Templates + "/tool_use.jinja";

    public const string Weights = "model.safetensors",
        Index = "model.safetensors.index.json";

    // Read by other tools only; kept so that a model merged here works there.
    private static readonly string[] others =
    [
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "chat_template.json",
    ];

    /// <summary>What turns text into tokens; the tokenizer's files first.</summary>
    public static IReadOnlyList<string> Text { get; } =
    [Tokenizer, TokenizerConfig, SpecialTokens, Template, ToolTemplate];

    /// <summary>Everything but weights. Only text, never code and never pickle.</summary>
    public static IReadOnlyList<string> Small { get; } = [Config, Generation, .. Text, .. others];

    /// <summary>Where a declared file lies.</summary>
    public static string In(string folder, string name) =>
        Path.Combine(folder, name.Replace('/', Path.DirectorySeparatorChar));

    /// <summary>Whether a file of a model is a small one: a declared one, or a chat template with a name of its
    /// own.</summary>
    public static bool IsSmall(string path) =>
        Small.Contains(path)
        || (Path.GetDirectoryName(path) == Templates && path.EndsWith(".jinja", StringComparison.Ordinal));

    /// <summary>The files that hold the weights, in transformers' order of preference: the whole file, and the index
    /// with its shards only where there is no whole file. An index that a change of format left behind is not read.
    /// </summary>
    /// <param name="exists">Whether a file of the model exists.</param>
    /// <param name="shards">The shards that the index names, asked for only where they are needed.</param>
    public static IReadOnlyList<string> WeightFiles(Func<string, bool> exists, Func<IReadOnlyList<string>> shards) =>
        exists(Weights) || !exists(Index) ? [Weights] : shards();
}
