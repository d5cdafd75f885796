using Memopt.Trainer.Autograd;
using Memopt.Trainer.Linears;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Attention and feed-forward, each behind a norm and around a residual.</summary>
internal sealed class DecoderLayer(int index) : Block
{
    public int Index => index;

    public required RmsNorm input_layernorm { get; init; }
    public required Attention self_attn { get; init; }
    public required RmsNorm post_attention_layernorm { get; init; }
    public required Mlp mlp { get; init; }

    /// <summary>Its linears, in the order of their use.</summary>
    public IEnumerable<Linear> Linears =>
        [.. self_attn.projections, self_attn.o_proj, .. mlp.projections, mlp.down_proj];

    /// <summary>Its linears, those with the same input grouped.</summary>
    public IEnumerable<Linear[]> LinearGroups =>
        [
            [.. self_attn.projections],
            [self_attn.o_proj],
            [.. mlp.projections],
            [mlp.down_proj],
        ];

    /// <summary>Its norms.</summary>
    public IEnumerable<RmsNorm> Norms =>
        new[] { input_layernorm, post_attention_layernorm, self_attn.q_norm, self_attn.k_norm }.OfType<RmsNorm>();

    /// <summary>Runs a layer and saves everything for its backward.</summary>
    public static LayerForward Plain { get; } = (layer, x, context) => layer.forward(x, context);

    /// <summary>Backward accumulates into the gradient that it is given, in place, and returns it. Without an output
    /// this is the second forward of activation checkpointing: the product of attention is left out too, where the sum
    /// after it was saved.</summary>
    protected override (Tensor? Output, Pullback? Backward) Run(Tensor x, ForwardContext context, bool output)
    {
        using var scope = NewDisposeScope();
        var normed = input_layernorm.forward(x, context);
        var middle = context.TakeSavedResidual(index, scope);
        ForwardResult normed2;
        Pullback? attended;
        if (middle is null)
        {
            (middle, attended) = self_attn.forward(normed.Output, context);
            normed2 = post_attention_layernorm.forward(x, context, middle); // middle becomes x + attended
        }
        else
        {
            attended = self_attn.Backward(normed.Output, context);
            normed2 = post_attention_layernorm.forward(middle, context);
        }
        context.SaveForBackward(index, middle);
        var (y, fed) = output
            ? Added(mlp.forward(normed2.Output, context), middle)
            : (null, mlp.Backward(normed2.Output, context));
        if (!context.NeedsGradient)
            return (y, null);
        var kept = scope.TakeAll();
        return (y, Backward);

        Tensor Backward(Tensor gradient, Tensor? accumulateInto)
        {
            using var scope = NewDisposeScope();
            normed2.Backward!(fed!(gradient), gradient);
            normed.Backward!(attended!(gradient), gradient);
            foreach (var tensor in kept)
                tensor.Dispose();
            return gradient;
        }

        static (Tensor?, Pullback?) Added(ForwardResult fed, Tensor middle) =>
            (fed.Output.add_(middle).MoveToOuterDisposeScope(), fed.Backward);
    }
}
