using Memopt.Trainer.Autograd;
using Memopt.Trainer.Linears;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Attention and feed-forward, each behind a norm and around a residual.</summary>
internal sealed class DecoderLayer(int index)
{
    public int Index => index;

    public required RmsNorm input_layernorm { get; init; }
    public required Attention self_attn { get; init; }
    public required RmsNorm post_attention_layernorm { get; init; }
    public required Mlp mlp { get; init; }

    /// <summary>Its linears, in the order of their use.</summary>
    public IEnumerable<Linear> Linears =>
        [.. self_attn.projections, self_attn.o_proj, .. mlp.projections, mlp.down_proj];

    /// <summary>Runs a layer and saves everything for its backward.</summary>
    public static LayerForward Run { get; } = (layer, x, context, mode) => layer.forward(x, context, mode);

    /// <summary>(N, C) → (N, C). Backward accumulates into the gradient that it is given, in place, and returns
    /// it.</summary>
    public ForwardResult forward(Tensor x, ForwardContext context, LinearMode mode = LinearMode.Full)
    {
        using var scope = NewDisposeScope();
        var normed = input_layernorm.forward(x, context);
        var middle = context.TakeSavedResidual(index, scope);
        var attended = self_attn.forward(
            normed.Output,
            context,
            middle is null ? LinearMode.Full : LinearMode.SkipOutput
        );
        var normed2 = middle is null
            ? post_attention_layernorm.forward(x, context, attended.Output)
            : post_attention_layernorm.forward(middle, context);
        middle ??= attended.Output; // x + attended: the norm has added them
        context.SaveForBackward(index, middle);
        var fed = mlp.forward(normed2.Output, context, mode);
        var y = fed.Computed?.add_(middle).MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return new(y, null);
        var kept = scope.TakeAll();
        return new(
            y,
            (gradient, _) =>
            {
                using var scope = NewDisposeScope();
                normed2.Backward!(fed.Backward!(gradient), gradient);
                normed.Backward!(attended.Backward!(gradient), gradient);
                foreach (var tensor in kept)
                    tensor.Dispose();
                return gradient;
            }
        );
    }
}
