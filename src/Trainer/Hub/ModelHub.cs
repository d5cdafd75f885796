namespace Memopt.Trainer.Hub;

/// <summary>Where a model's files are.</summary>
public static class ModelHub
{
    /// <summary>The small WordNet model that ships with the tool.</summary>
    public const string Nano = "embedded:nano";

    /// <summary>Folder of a source: a local folder, or the embedded model beside the program.</summary>
    /// <param name="source">model.source.</param>
    /// <param name="folder">What a relative path is relative to.</param>
    /// <param name="program">The program's own folder.</param>
    public static string Locate(string source, string folder, string program)
    {
        if (source == Nano)
            return Path.Combine(program, "models", "nano");
        if (source.StartsWith("embedded:", StringComparison.Ordinal))
            throw new UserFault($"There is no embedded model \"{source}\".", found: source, next: $"use \"{Nano}\"");
        var path = Path.GetFullPath(Path.Combine(folder, source));
        if (Directory.Exists(path))
            return path;
        throw new UserFault($"The model \"{source}\" is not here.", found: $"no folder {path}",
            next: $"put config.json, the tokenizer and the safetensors into a folder and name it, or use \"{Nano}\"");
    }
}
