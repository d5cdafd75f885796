using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Tests.Data;

/// <summary>Against transformers 5: get_warmup_steps (math.ceil of a share, int of a number of steps) and get_linear_schedule_with_warmup.</summary>
public sealed class ScheduleTests
{
    [Theory]
    [InlineData(0.1, 15, 0, 0.0005, 0.001), InlineData(0.1, 20, 0, 0.0005, 0.001), InlineData(0.01, 15, 0, 0.001, 0.001 * 13 / 14), InlineData(0, 15, 0.001, 0.001 * 14 / 15, 0.001 * 13 / 15)]
    [InlineData(2, 15, 0, 0.0005, 0.001), InlineData(2.9, 15, 0, 0.0005, 0.001)]
    public void A_share_of_warm_up_is_rounded_up(double warmup, int total, params double[] expected)
    {
        var schedule = new Schedule(new TrainConfig { LearningRate = 0.001, Warmup = warmup }, total);
        Assert.All(expected, (rate, step) => Assert.Equal(rate, schedule.At(step), 1e-12));
    }
}
