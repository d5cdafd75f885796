using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Adapters;

/// <summary>A linear plus scale · B A dropout(x), B A of low rank (Hu et al. 2021, arXiv 2106.09685), as PEFT defines it.</summary>
public sealed class LoraLinear(Linear inner, Parameter lora_A, Parameter lora_B, double scale, double dropout, int number)
    : Linear(inner.Name, inner.In, inner.Out, inner.bias), IDisposable
{
    public Linear Inner { get; } = inner;

    public Parameter lora_A { get; } = lora_A;                               // (r, In)

    public Parameter lora_B { get; } = lora_B;                               // (Out, r)

    public double Scale { get; } = scale;

    public int Rank => (int)lora_A.Value.shape[0];

    public override IEnumerable<Parameter> Parameters => [.. Inner.Parameters, lora_A, lora_B];

    public override long WeightBytes => Inner.WeightBytes;

    /// <summary>The inner weight alone; <see cref="Merged"/> has the adapter in it.</summary>
    public override Tensor Dense(ScalarType type) => Inner.Dense(type);

    /// <summary>W + scale · B A, summed in fp32, (Out, In).</summary>
    public Tensor Merged(Tensor weight)
    {
        using var _ = NewDisposeScope();
        using var __ = no_grad();
        var delta = lora_B.Value.to(float32).matmul(lora_A.Value.to(float32)).mul_(Scale);
        return weight.to(float32).add(delta.to(weight.device)).MoveToOuterDisposeScope();
    }

    public override Out forward(Tensor x, Pass pass)
    {
        using var _ = NewDisposeScope();
        using var __ = no_grad();
        var (y, innerBack) = Inner.forward(x, pass);
        var type = x.dtype;
        var keep = dropout > 0 && pass.Seed is { } seed ? Kept(x, seed) : null;
        var dropped = keep is null ? x : x * keep;
        var low = dropped.matmul(lora_A.As(type).t());                       // (…, r)
        y.add_(low.matmul(lora_B.As(type).t()).mul_(Scale));
        y.MoveToOuterDisposeScope();
        if (!pass.Learns)
            return new(y, null);
        keep?.MoveToOuterDisposeScope();
        low.MoveToOuterDisposeScope();
        return new(y, gradient =>
        {
            using var _ = NewDisposeScope();
            using var __ = no_grad();
            var dx = innerBack!(gradient);
            var scaled = (gradient * Scale).reshape(-1, Out);
            lora_B.Accumulate(scaled.t().matmul(low.reshape(-1, Rank)));
            var dlow = scaled.matmul(lora_B.As(type));
            var input = keep is null ? x : x * keep;
            lora_A.Accumulate(dlow.t().matmul(input.reshape(-1, In)));
            var dinput = dlow.matmul(lora_A.As(type)).reshape(x.shape);
            return dx.add_(keep is null ? dinput : dinput.mul_(keep)).MoveToOuterDisposeScope();
        });
    }

    public void Dispose() => (Inner as IDisposable)?.Dispose();

    /// <summary>0 where dropped, 1 / (1 − p) where kept; the same for the same seed, on the way out and again on the way back.</summary>
    private Tensor Kept(Tensor x, long seed)
    {
        using var generator = new Generator((ulong)(seed * 1_000_003 + number), x.device);
        return rand(x.shape, float32, x.device, generator: generator).ge(dropout).to(x.dtype).div_(1 - dropout);
    }
}
