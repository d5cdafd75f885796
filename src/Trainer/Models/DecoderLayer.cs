using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Attention and feed-forward, each behind a norm and around a residual.</summary>
public sealed class DecoderLayer(int index)
{
    public int Index => index;

    public required RmsNorm input_layernorm { get; init; }
    public required Attention self_attn { get; init; }
    public required RmsNorm post_attention_layernorm { get; init; }
    public required FeedForward mlp { get; init; }

    /// <summary>Its linears, in the order of their use.</summary>
    public IEnumerable<Linear> Linears => [.. self_attn.projections, self_attn.o_proj, .. mlp.projections, mlp.down_proj];

    /// <summary>(N, C) → (N, C). The way back adds its part to the gradient it is given, in place, and returns that.</summary>
    public Out forward(Tensor x, Pass pass, Wanted wanted = Wanted.All)
    {
        using var scope = NewDisposeScope();
        var normed = input_layernorm.forward(x, pass);
        var middle = pass.RememberedResidual(index, scope);
        var attended = self_attn.forward(normed.Value, pass, middle is null ? Wanted.All : Wanted.NoValue);
        var normed2 = middle is null ? post_attention_layernorm.forward(x, pass, attended.Value) : post_attention_layernorm.forward(middle, pass);
        middle ??= attended.Value;                                           // x + attended: the norm has added them
        pass.Remember(index, middle);
        var fed = mlp.forward(normed2.Value, pass, wanted);
        var y = fed.Value?.add_(middle).MoveToOuterDisposeScope();
        if (!pass.Learns)
            return new(y!, null);
        var kept = scope.TakeAll();
        return new(y!, (gradient, _) =>
        {
            using var scope = NewDisposeScope();
            normed2.Back!(fed.Back!(gradient), gradient);
            normed.Back!(attended.Back!(gradient), gradient);
            foreach (var tensor in kept)
                tensor.Dispose();
            return gradient;
        });
    }
}
