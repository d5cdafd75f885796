using Memopt.Core;
using Memopt.Trainer.Weights;

namespace Memopt;

/// <summary>An adapter on disk, and the model that it belongs to.</summary>
/// <param name="Folder">Its folder, in PEFT's layout.</param>
/// <param name="Model">The base model: a folder, <c>embedded:nano</c>, or a model to download, as in
/// <c>model.source</c>.</param>
/// <param name="Revision">Branch, tag or commit of a downloaded base; null is the main branch.</param>
/// <param name="Rank">Of the LoRA product.</param>
/// <param name="Alpha">LoRA scale: the product is multiplied by alpha / rank.</param>
public sealed record Adapter(string Folder, string Model, string? Revision, int Rank, double Alpha);

/// <summary>Finds adapters.</summary>
public static class Adapters
{
    /// <summary>The folder beside a program's dll in which adapters are looked for by name.</summary>
    public const string BesideProgram = "adapters";

    /// <summary>Reads what an adapter is, without its weights.</summary>
    /// <param name="folderOrName">A folder that holds <c>adapter_config.json</c>, as memopt and PEFT write it, or NAME:
    /// the folder <c>adapters/NAME</c> beside the program's dll.</param>
    /// <param name="model">The base model, where it is not the one that the adapter names.</param>
    /// <exception cref="UserFault">There is no adapter there, or it names no base model.</exception>
    /// <example><code>
    /// using var client = TextGenerator.Load(Adapters.Load(".memopt/memopt/adapter"));
    /// Console.WriteLine(await client.GetResponseAsync("What part of speech is \"serendipity\"?"));
    /// </code></example>
    public static Adapter Load(string folderOrName, string? model = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(folderOrName);
        var beside = Path.Combine(AppContext.BaseDirectory, BesideProgram, folderOrName);
        var folder = Path.GetFullPath(folderOrName);
        if (!Directory.Exists(folder))
        {
            folder = Directory.Exists(beside)
                ? beside
                : throw new UserFault(
                    $"There is no adapter \"{folderOrName}\".",
                    found: $"neither the folder {folder} nor {beside}",
                    next: "train it first, or name the folder that holds adapter_config.json"
                );
        }
        var adapter = PeftAdapter.Described(folder);
        model ??=
            adapter.Base.Name
            ?? throw new UserFault(
                $"The adapter in {folder} does not name its base model.",
                next: "name it: Adapters.Load(folder, model)"
            );
        // A base in a folder was written down relative to the config, whose results lie in .memopt/NAME/adapter.
        var near = Path.GetFullPath(Path.Combine(folder, "..", "..", "..", model));
        return new(
            folder,
            !Directory.Exists(model) && Directory.Exists(near) ? near : model,
            adapter.Base.Revision,
            adapter.Config.Rank,
            adapter.Config.Alpha
        );
    }
}
