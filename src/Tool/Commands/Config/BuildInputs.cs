using System.Text;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Sources;

namespace Memopt.Tool.Commands;

/// <summary>What the result of a config depends on, for a build: by content, to know whether to train, and by place, to
/// know whether to look.</summary>
internal static class BuildInputs
{
    /// <summary>A line for each: the tool, the settings that change a result, and the sha256 of each file.</summary>
    public static string Content(ProjectConfig config)
    {
        var text = new StringBuilder($"tool {Shell.Version}\nsettings {config.Hash}\n");
        if (Model(config) is { Remote: true } model)
            // a pinned commit never changes; a branch is asked for by run
            text.Append($"model {model} {config.Settings.Model.Revision}\n");
        foreach (var source in config.Settings.Data.Sources.Where(source => source.Remote))
            text.Append($"data {Secrets.Redact($"{source}")}\n"); // likewise
        if (config.Settings.Adapter.From is { } from && !Directory.Exists(config.Full(from)))
            text.Append($"adapter {from} {CurrentProject.KnownHash(config, from)}\n");
        foreach (var path in Files(config))
            text.Append(Sha256.OfFile(path)).Append(' ').Append(Path.GetRelativePath(config.Folder, path)).Append('\n');
        return text.ToString();
    }

    /// <summary>Full paths of the files, and of the folders in which another file would count, those with / at the end;
    /// one a line.</summary>
    public static string Watched(ProjectConfig config)
    {
        var paths = new List<string> { Path.GetFullPath(config.File) };
        if (config.Settings.Distributed.Deepspeed is { } deepSpeed)
            paths.Add(config.Full(deepSpeed));
        paths.AddRange(Files(config));
        paths.AddRange(Folders(config).Select(folder => folder + "/"));
        if (config.StartingAdapter is { } from && ProjectPaths.ProducerConfig(from) is not null)
            paths.Add(from + "/"); // also before it is made
        foreach (var source in config.Settings.Data.Sources.Where(source => !source.Remote))
        {
            if (Root(config.Full(source.Source)) is { } root)
                paths.AddRange(
                    Directory
                        .EnumerateDirectories(root, "*", SearchOption.AllDirectories)
                        .Prepend(root)
                        .Select(folder => folder + "/")
                );
        }
        return string.Concat(paths.Distinct().Select(path => path + "\n"));
    }

    /// <summary>The folder below which a source's files are looked for; null when it is one file.</summary>
    private static string? Root(string path)
    {
        if (File.Exists(path))
            return null;
        while (!Directory.Exists(path))
            path = Path.GetDirectoryName(path)!;
        return path;
    }

    private static ModelSource Model(ProjectConfig config) =>
        ModelSource.Parse(config.Settings.Model.Source, config.Folder);

    private static IEnumerable<string> Files(ProjectConfig config) =>
        Dataset
            .Files(config)
            .Concat(Folders(config).SelectMany(Directory.EnumerateFiles).Order(StringComparer.Ordinal));

    private static IEnumerable<string> Folders(ProjectConfig config)
    {
        if (Model(config) is { Kind: SourceKind.Folder } model) // the embedded model is the tool's version
        {
            yield return model.Name;
            if (Path.Combine(model.Name, ModelLayout.Templates) is var templates && Directory.Exists(templates))
                yield return templates;
        }
        if (config.StartingAdapter is { } from && Directory.Exists(from))
            yield return from;
    }
}
