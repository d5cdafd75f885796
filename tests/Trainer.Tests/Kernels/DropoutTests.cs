using Memopt.Trainer.Kernels;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Kernels;

[Collection(ExclusiveCollection.Name)]
public sealed class DropoutTests
{
    /// <summary>The first outputs of SplitMix64 from seed 0 are published (e.g. by xoshiro's authors); the mask follows
    /// from their upper halves.</summary>
    [Fact]
    public void Dropout_mask_follows_the_published_SplitMix64_draws()
    {
        ulong[] published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC];
        foreach (var p in new[] { 0.02, 0.03, 0.4, 0.5, 0.9 })
        {
            using var mask = Dropout.Mask([4], float32, CPU, p, 0);
            Assert.Equal(
                published.Select(bits => bits / Math.Pow(2, 64) < p ? 0 : (float)(1 / (1 - p))),
                mask.data<float>().ToArray()
            );
        }
    }

    [Fact]
    public void Dropout_mask_of_some_rows_has_those_of_the_whole()
    {
        using var scope = NewDisposeScope();
        var rows = tensor(new long[] { 2, 3, 11, 10 });
        var whole = Dropout.Mask([12, 3, 7], float32, CPU, 0.5, 9);
        Assert.True(
            whole.index_select(0, rows).Equals(Dropout.Mask([4, 3, 7], float32, CPU, 0.5, 9, rows)),
            "other rows"
        );
    }

    [Fact]
    public void Dropout_mask_keeps_its_share_and_differs_by_seed()
    {
        using var scope = NewDisposeScope();
        var (one, other) = (
            Dropout.Mask([300, 1000], float32, CPU, 0.25, 7),
            Dropout.Mask([300, 1000], float32, CPU, 0.25, 8)
        );
        Assert.Equal(1, one.mean().item<float>(), 2);
        Assert.Equal(0.75 * 0.75, one.gt(0).logical_and(other.gt(0)).to(float32).mean().item<float>(), 2);
    }
}
