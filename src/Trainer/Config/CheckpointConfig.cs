using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace Memopt.Trainer.Config;

public sealed record CheckpointConfig
{
    [
        Description("Optimizer steps between checkpoints. A kill costs at most this many."),
        Unit("steps"),
        Range(1, int.MaxValue)
    ]
    public int Every { get; init; } = 200;

    [Description("Number of checkpoints to keep; older ones are deleted."), Range(1, 1000)]
    public int Keep { get; init; } = 2;
}
