using Memopt.Trainer.Config.DeepSpeed;

namespace Memopt.Trainer.Config;

/// <summary>A config that was read and has no problems.</summary>
/// <param name="Settings">The settings, overrides applied.</param>
/// <param name="File">The file they came from.</param>
/// <param name="Folder">Its folder; paths in the config are relative to it.</param>
/// <param name="Json">All settings as JSON, defaults written out.</param>
/// <param name="Hash">sha256 of the pinned settings.</param>
/// <param name="Overrides">What the command line and a DeepSpeed file changed.</param>
internal sealed record ProjectConfig(
    RunConfig Settings,
    string File,
    string Folder,
    string Json,
    string Hash,
    IReadOnlyList<Override> Overrides
)
{
    /// <summary>A path of the config as a full path.</summary>
    public string Full(string path) => Path.GetFullPath(Path.Combine(Folder, path));

    /// <summary>The folder of the adapter to start from, or null; for a registered one, once it is here.</summary>
    public string? StartingAdapter
    {
        get => field ?? (Settings.Adapter.From is { } from ? Full(from) : null);
        init;
    }

    /// <summary>The DeepSpeed file whose keys are among the settings; null when there is none.</summary>
    public DeepSpeedFile? DeepSpeed { get; init; }

    /// <summary>Where the data sets from elsewhere lie, by their source, once they are here.</summary>
    public IReadOnlyDictionary<string, Memopt.Hub.Snapshot> Snapshots { get; init; } =
        new Dictionary<string, Memopt.Hub.Snapshot>();
}
