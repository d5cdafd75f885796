namespace Memopt.Trainer.Config;

/// <summary>Where the checkpoints and the adapter of a config file are.</summary>
internal static class ProjectPaths
{
    /// <summary>Folder of the checkpoints and the adapter of a config file.</summary>
    public static string Output(string configFile) =>
        Path.Combine(
            Path.GetDirectoryName(Path.GetFullPath(configFile))!,
            ".memopt",
            Path.GetFileNameWithoutExtension(configFile)
        );

    /// <summary>The config file whose training leaves its adapter in a folder; null when there is none.</summary>
    public static string? ProducerConfig(string adapter)
    {
        var folder = Path.TrimEndingDirectorySeparator(Path.GetFullPath(adapter));
        var config = Path.GetDirectoryName(folder) is { } output
            ? Path.GetFullPath(Path.Combine(output, "..", "..", Path.GetFileName(output) + ".json"))
            : null;
        return File.Exists(config) && folder == Path.Combine(Output(config), "adapter") ? config : null;
    }
}
