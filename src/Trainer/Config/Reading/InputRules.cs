using Memopt.Core;
using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Config.Reading;

/// <summary>Model, data and adapter that a config names and that are not there.</summary>
/// <param name="config">The config.</param>
/// <param name="folder">The folder that its paths are relative to.</param>
/// <param name="problems">Gets a problem for each that is missing.</param>
internal sealed class InputRules(RunConfig config, string folder, ConfigProblems problems)
{
    private const string Code = "MEMOPT0005";

    public void Check()
    {
        Model();
        Data("data.train", config.Data.Train);
        Data("data.eval", config.Data.Eval);
        StartingAdapter();
    }

    private void Model()
    {
        try
        {
            ModelSource.Parse(config.Model.Source, folder);
        }
        catch (UserFault e)
        {
            problems.AddOf("model.source", $"{e.Message} ({e.Found}); {e.Next}", Code);
        }
    }

    private void Data(string setting, DataSources? sources)
    {
        foreach (
            var problem in (sources?.List ?? []).Select(source => DataFiles.Problem(source, folder)).OfType<string>()
        )
            problems.AddOf(setting, problem, Code);
    }

    private void StartingAdapter()
    {
        if (
            config.Adapter.From is { } from
            && !Directory.Exists(Path.Combine(folder, from))
            && ProjectPaths.ProducerConfig(Path.Combine(folder, from)) is null
            && !IsRegistered(from)
        )
            problems.AddOf("adapter.from", $"\"{from}\" is not a folder in {folder}, and no registered adapter", Code);
    }

    private bool IsRegistered(string reference)
    {
        var artifacts = config.Tracking.Artifacts;
        // A name that only the storage account knows is asked for when it is needed.
        if (AdapterRegistry.IsReference(reference) && BlobLocation.Is(artifacts))
            return true;
        try
        {
            return new AdapterRegistry(Path.Combine(folder, artifacts)).Resolve(reference).Name.Length > 0;
        }
        catch (TrackingException)
        {
            return false;
        }
    }
}
