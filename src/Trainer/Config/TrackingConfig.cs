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

    [Description("Name of the experiment that the run belongs to.")]
    public string Experiment { get; init; } = "default";

    [Description(
        "Where artifacts are stored by content hash: a folder (relative to the config file), or "
            + "az://account/container/path, uploaded from .memopt/artifacts (with AZURE_STORAGE_CONNECTION_STRING, "
            + "AZURE_STORAGE_SAS_TOKEN or the Azure login of this machine)."
    )]
    public string Artifacts { get; init; } = ".memopt/artifacts";

    [Description(
        "upload: checkpoints are uploaded to the storage account of the artifacts. keep: they are not. Uploads run in "
            + "the background, newest first. A checkpoint that checkpoint.keep removes first is not uploaded. Each "
            + "takes its size in the account until artifacts rm --checkpoints."
    )]
    public CheckpointUploads Checkpoints { get; init; } = CheckpointUploads.Upload;

    [
        Description(
            "How long a finished training retries uploads to the storage account. The next run or artifacts sync "
                + "uploads the rest."
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

    [Description("Ranks the versions of a registered adapter: min or max of a metric.")]
    public string Best { get; init; } = "min(eval_loss)";

    [Description(
        "Folder for TensorBoard's event files (relative to the config file), with a folder for each run. "
            + "None: no event files."
    )]
    public string? Tensorboard { get; init; }

    [Description("Free labels for queries.")]
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();
}
