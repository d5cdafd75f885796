namespace Memopt.Core.Tests;

/// <summary>Where the files of this repository are.</summary>
internal static class Repository
{
    /// <summary>The folder of Tool.sln.</summary>
    public static string Root { get; } = Above(AppContext.BaseDirectory);

    /// <summary>The model that travels with the tool.</summary>
    public static string Nano => Path.Combine(Root, "samples", "word-class", "model");

    private static string Above(string folder)
    {
        while (!File.Exists(Path.Combine(folder, "Tool.sln")))
            folder =
                Path.GetDirectoryName(folder)
                ?? throw new DirectoryNotFoundException("Tool.sln is not above the tests");
        return folder;
    }
}
