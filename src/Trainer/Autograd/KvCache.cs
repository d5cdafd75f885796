using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>Keys and values of the tokens so far, one pair a layer, (B, KV, T, D).</summary>
internal sealed class KvCache(int layers) : IDisposable
{
    private readonly (Tensor Keys, Tensor Values)?[] past = new (Tensor, Tensor)?[layers];

    /// <summary>Tokens seen.</summary>
    public int Length { get; private set; }

    /// <summary>Adds this pass's keys and values and returns all so far.</summary>
    public (Tensor Keys, Tensor Values) Append(int layer, Tensor keys, Tensor values)
    {
        if (past[layer] is { } old)
        {
            (keys, values) = (cat([old.Keys, keys], 2), cat([old.Values, values], 2));
            old.Keys.Dispose();
            old.Values.Dispose();
        }
        past[layer] = (keys.DetachFromDisposeScope(), values.DetachFromDisposeScope());
        return (keys, values);
    }

    /// <summary>Called once a pass, after its last layer.</summary>
    public void Advance(int tokens) => Length += tokens;

    public void Dispose()
    {
        foreach (var pair in past)
        {
            pair?.Keys.Dispose();
            pair?.Values.Dispose();
        }
    }
}
