using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Runs;

/// <summary>The inputs of a run, fetched.</summary>
/// <param name="Config">The config, with the adapter's folder and the data sets located.</param>
/// <param name="Model">The model.</param>
/// <param name="AdapterVersion">NAME@number of the registered adapter that the run starts from, or null.</param>
/// <param name="Parent">The run that this one comes from, or null.</param>
/// <param name="Events">Retries of downloads, for the record.</param>
internal sealed record ResolvedInputs(
    ProjectConfig Config,
    Snapshot Model,
    string? AdapterVersion,
    RunParent? Parent,
    IReadOnlyList<RunEvent> Events
);
