using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>The order of a pipeline's stages (Narayanan et al. 2021, arXiv 2104.04473, figure 4), and the cut of a
/// model into stages.</summary>
public sealed class PipelineScheduleTests
{
    [
        Theory,
        InlineData(0, 4, 8, "FFFFBFBFBFBFBBBB"),
        InlineData(3, 4, 8, "FBFBFBFBFBFBFBFB"),
        InlineData(1, 4, 2, "FFBB"),
        InlineData(0, 4, 1, "FB"),
        InlineData(0, 1, 3, "FBFBFB"),
        InlineData(0, 2, 0, "")
    ]
    public void Stage_runs_one_forward_and_one_backward_in_turns(int stage, int stages, int count, string order)
    {
        var passes = PipelineSchedule.Order(new(stage, stages), count);
        Assert.Equal(order, string.Concat(passes.Select(pass => pass.IsForward ? 'F' : 'B')));
        var (held, most) = (0, 0);
        foreach (var pass in passes)
            most = Math.Max(most, held += pass.IsForward ? 1 : -1);
        Assert.Equal((0, Math.Min(stages - stage, count)), (held, most));
        foreach (var forward in new[] { true, false })
            Assert.Equal(
                Enumerable.Range(0, count),
                passes.Where(pass => pass.IsForward == forward).Select(pass => pass.Number)
            );
    }

    [Theory, InlineData(4, 1024, 2, "3 1"), InlineData(4, 1024, 4, "1 1 1 1"), InlineData(8, 1024, 3, "3 3 2")]
    [InlineData(8, 2048, 2, "5 3")] // the head costs as much as three layers
    public void Layers_are_cut_by_their_arithmetic_and_the_head_counts(
        int layers,
        int vocabulary,
        int stages,
        string counts
    )
    {
        var spec = ModelSpec.Read(new Shape(64, 128, layers, 4, 2, vocabulary).Folder());
        var cut = PipelineStages.Cut(spec, stages, AdapterKind.Lora, 64);
        Assert.Equal(counts, string.Join(' ', cut.Select(stage => stage.Layers)));
        Assert.Equal(
            spec.Tensors.Select(tensor => tensor.Name),
            cut.SelectMany(stage => stage.Tensors, (_, t) => t.Name)
        );
        Assert.Equal(Enumerable.Range(0, layers), cut.SelectMany(stage => stage.Blocks, (_, block) => block.Index));
    }

    [Fact]
    public void More_stages_than_layers_are_refused()
    {
        var spec = ModelSpec.Read(new Shape(64, 128, 4, 4, 2, 1024).Folder());
        var fault = Assert.Throws<UserFault>(() => PipelineStages.Cut(spec, 5, AdapterKind.Lora, 64));
        Assert.Contains("4 layers", fault.Found);
    }
}
