using Memopt.Trainer.Adapters;
using Memopt.Trainer.Config;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Models;

/// <summary>A decoder in parts: from embeddings, some of the layers, without its adapters.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class StagesTests
{
    private static readonly long[] ids = [5, 9, 1, 7, 3, 3, 8, 2];

    /// <summary>Two stages of a pipeline, each with some of the layers, give the bits of the whole, forward and
    /// backward.</summary>
    [Theory, InlineData(1), InlineData(2)]
    public void Layers_run_in_two_stages_give_the_bits_of_one_pass(int first)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = Nano();
        var tokens = tensor(ids).view(2, 4);
        var gradient = randn([8, model.Spec.HiddenSize], float32);

        using var whole = model.NewContext(4, needsGradient: true);
        var (expected, wholeBackward) = model.ForwardLayers(model.Embed(tokens), whole, 0, model.layers.Length);
        using var parts = model.NewContext(4, needsGradient: true);
        var (middle, firstBackward) = model.ForwardLayers(model.Embed(tokens), parts, 0, first);
        var sent = middle.clone(); // as a rank receives it
        var (last, secondBackward) = model.ForwardLayers(sent, parts, first, model.layers.Length - first);

        Assert.True(expected.equal(last).all().item<bool>());
        var expectedGradient = wholeBackward!(gradient.clone());
        var actualGradient = firstBackward!(secondBackward!(gradient.clone()));
        Assert.True(expectedGradient.equal(actualGradient).all().item<bool>());
        Assert.True(expectedGradient.abs().sum().item<float>() > 0);
    }

    [Fact]
    public void Model_with_adapters_disabled_equals_the_base()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = Nano();
        var tokens = tensor(ids).view(2, 4);
        Tensor Hidden(bool disabled)
        {
            using var context = model.NewContext(4);
            context.AdaptersDisabled = disabled;
            return model.Forward(tokens, context).Output;
        }
        var frozen = Hidden(disabled: false);
        foreach (var lora in AdapterPass.Attach(model, new AdapterConfig { Rank = 4 }, seed: 1))
            lora.lora_B.Value.add_(0.5);
        Assert.False(frozen.equal(Hidden(disabled: false)).all().item<bool>());
        Assert.True(frozen.equal(Hidden(disabled: true)).all().item<bool>());
    }

    private static Decoder Nano()
    {
        var spec = ModelSpec.Read(TestBackend.Nano);
        using var weights = new WeightStream(TestBackend.Nano, spec, float32, CPU);
        return new(spec, weights, float32, CPU);
    }
}
