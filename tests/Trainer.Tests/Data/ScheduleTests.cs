using Memopt.Trainer.Config;
using Memopt.Trainer.Optim;

namespace Memopt.Trainer.Tests.Data;

/// <summary>Against transformers 5: get_warmup_steps (math.ceil of a share, int of a number of steps) and
/// get_linear_schedule_with_warmup.</summary>
public sealed class ScheduleTests
{
    [Theory]
    [
        InlineData(0.1, 15, 0, 0.5, 1),
        InlineData(0.1, 20, 0, 0.5, 1),
        InlineData(0.01, 15, 0, 1, 13.0 / 14),
        InlineData(0, 15, 1, 14.0 / 15, 13.0 / 15)
    ]
    [InlineData(2, 15, 0, 0.5, 1), InlineData(2.9, 15, 0, 0.5, 1)]
    public void Warm_up_share_is_rounded_up_to_whole_steps(
        double warmup,
        int total,
        double first,
        double second,
        double third
    )
    {
        var schedule = new Schedule(new TrainConfig { LearningRate = 1, Warmup = warmup }, total);
        foreach (var (rate, step) in new[] { first, second, third }.Select((rate, step) => (rate, step)))
            Assert.Equal(rate, schedule.At(step), 1e-12);
    }
}
