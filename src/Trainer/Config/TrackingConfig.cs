using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace Memopt.Trainer.Config;

/// <summary>What becomes of checkpoints when artifacts go to a storage account.</summary>
public enum CheckpointUploads
{
    Upload,
    Keep,
}

public sealed record TrackingConfig
{
    [Description("Folder of the run store (relative to the config file).")]
    public string Store { get; init; } = ".memopt/store";

    [Description("Name the run is filed under.")]
    public string Experiment { get; init; } = "default";

    [Description(
        "Where artifacts are stored by content hash: a folder (relative to the config file), or "
            + "az://account/container/path, to which they go from .memopt/artifacts (AZURE_STORAGE_CONNECTION_STRING, "
            + "AZURE_STORAGE_SAS_TOKEN or the Azure login of this machine)."
    )]
    public string Artifacts { get; init; } = ".memopt/artifacts";

    [Description(
        "Whether checkpoints go to the storage account too, when artifacts do: upload, or keep them here. Sent "
            + "in the background, newest first, one that checkpoint.keep removes before its turn not at all. Each "
            + "takes its size in the account until artifacts rm --checkpoints."
    )]
    public CheckpointUploads Checkpoints { get; init; } = CheckpointUploads.Upload;

    [
        Description(
            "How long a training that is done waits for the storage account, trying again while it cannot be "
                + "reached. What is not there then is sent by the next run or by artifacts sync."
        ),
        Unit("hours"),
        Range(0.0, 1000.0)
    ]
    public double UploadHours { get; init; } = 4;

    [Description(
        "Name under which a finished run's adapter is registered as the next version (adapters ls); none is the "
            + "experiment's name."
    )]
    public string? Register { get; init; }

    [Description("What tells the best version of a registered adapter: min or max of a metric.")]
    public string Best { get; init; } = "min(eval_loss)";

    [Description(
        "Folder for TensorBoard's event files (relative to the config file), one folder a run in it, written as "
            + "the run goes; none writes none."
    )]
    public string? Tensorboard { get; init; }

    [Description("Free labels for queries.")]
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();
}
