using Memopt.Trainer.Native;

namespace Memopt.Trainer.Tests.Native;

/// <summary>The allocator's settings beside those that the user has set.</summary>
public sealed class AllocatorSettingsTests
{
    private const string Limit = "per_process_memory_fraction:0.9999999";

    [Theory]
    [InlineData(null, "expandable_segments:True," + Limit), InlineData(" ", "expandable_segments:True," + Limit)]
    [
        InlineData("expandable_segments:True", "expandable_segments:True," + Limit),
        InlineData("max_split_size_mb:128,", "max_split_size_mb:128," + Limit)
    ]
    [InlineData("per_process_memory_fraction:0.5", null), InlineData("backend:cudaMallocAsync", null)]
    public void Allocator_settings_of_the_user_stay_and_get_a_limit(string? user, string? expected) =>
        Assert.Equal(expected, AllocatorSettings.With(user));
}
