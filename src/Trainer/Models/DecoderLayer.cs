using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>Attention and feed-forward, each behind a norm and around a residual.</summary>
public sealed class DecoderLayer
{
    public required RmsNorm input_layernorm { get; init; }
    public required Attention self_attn { get; init; }
    public required RmsNorm post_attention_layernorm { get; init; }
    public required FeedForward mlp { get; init; }

    public Out forward(Tensor x, Pass pass)                                  // (B, T, C) -> (B, T, C)
    {
        var normed = input_layernorm.forward(x, pass);
        var attended = self_attn.forward(normed.Value, pass);
        var middle = x + attended.Value;
        var normed2 = post_attention_layernorm.forward(middle, pass);
        var fed = mlp.forward(normed2.Value, pass);
        var y = middle + fed.Value;
        if (!pass.Learns)
            return new(y, null);
        return new(y, gradient =>
        {
            gradient = gradient + normed2.Back!(fed.Back!(gradient));
            return gradient + normed.Back!(attended.Back!(gradient));
        });
    }
}
