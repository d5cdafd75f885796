using Memopt.Trainer.Config;

namespace Memopt.Trainer.Optim;

/// <summary>The learning rate of each step, as transformers' schedulers of the same names.</summary>
internal sealed class Schedule(TrainConfig config, int total)
{
    // As transformers' get_warmup_steps: a share is rounded up, a number of steps down.
    private readonly double warmup =
        config.Warmup < 1 ? Math.Ceiling(config.Warmup * total) : Math.Floor(config.Warmup);

    /// <param name="step">From 0.</param>
    public double At(int step)
    {
        if (step < warmup)
            return config.LearningRate * step / Math.Max(1, warmup);
        var share = (step - warmup) / Math.Max(1, total - warmup); // 0 … 1 after the warm-up
        return config.LearningRate
            * config.Schedule switch
            {
                ScheduleKind.Linear => Math.Max(0, 1 - share),
                ScheduleKind.Cosine => Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * share))),
                _ => 1,
            };
    }
}
