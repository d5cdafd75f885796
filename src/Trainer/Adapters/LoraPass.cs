using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Adapters;

/// <summary>One forward pass of a linear with LoRA: y = x Wᵀ + b + scale · (dropout(x) Aᵀ) Bᵀ. The low-rank part of the
/// output, and that of the input's gradient, can be left to a kernel that adds them to what it reads anyway.</summary>
/// <param name="lora">The linear.</param>
/// <param name="inner">The pass of the frozen linear.</param>
/// <param name="input">x, (N, In).</param>
/// <param name="low">dropout(x) Aᵀ, (N, r).</param>
/// <param name="mask">The dropout's factors, (N, In), or null.</param>
internal sealed class LoraPass(LoraLinear lora, LinearPass inner, Tensor input, Tensor low, Tensor? mask)
    : LinearPass(input)
{
    private Tensor? dlow; // (N, r): gradient · B, without the scale

    /// <summary>The pass of the frozen linear alone.</summary>
    public LinearPass Inner => inner;

    /// <summary>The part of the output that <see cref="Inner"/> lacks.</summary>
    public LowRank Low => new(low, lora.lora_B.Cast(low.dtype), lora.Scale);

    /// <summary>The part of the input's gradient that <see cref="InnerInputGradient"/> lacks, after it and before
    /// <see cref="WeightGradient"/>. Without dropout.</summary>
    public LowRank LowGradient => new(dlow!, lora.lora_A.Cast(dlow!.dtype), lora.Scale);

    /// <summary>x with the dropout's factors.</summary>
    public static Tensor Dropped(Tensor x, Tensor? mask) => mask is null ? x : x * mask;

    public override Tensor Output()
    {
        using var scope = NewDisposeScope();
        var y = inner.Output();
        y.addmm_(low, lora.lora_B.Cast(low.dtype).t(), 1, (float)lora.Scale);
        return y.MoveToOuterDisposeScope();
    }

    /// <summary>The gradient of the input is first here: that of A needs a part of it.</summary>
    public override Tensor Backward(Tensor gradient, Tensor? accumulateInto = null)
    {
        var dx = InputGradient(gradient, accumulateInto);
        WeightGradient(gradient, Input);
        return dx;
    }

    public override Tensor InputGradient(Tensor gradient, Tensor? accumulateInto)
    {
        using var scope = NewDisposeScope();
        var dx = InnerInputGradient(gradient, accumulateInto);
        var a = lora.lora_A.Cast(gradient.dtype);
        if (mask is null)
            dx.addmm_(dlow!, a, 1, (float)lora.Scale);
        else
            dx.add_(dlow!.matmul(a).mul_(mask), lora.Scale);
        return accumulateInto ?? dx.MoveToOuterDisposeScope();
    }

    /// <summary>The gradient of the input by the frozen weight alone; accumulates the gradient of B.</summary>
    public Tensor InnerInputGradient(Tensor gradient, Tensor? accumulateInto)
    {
        using var scope = NewDisposeScope();
        var dx = inner.InputGradient(gradient, accumulateInto);
        lora.lora_B.Accumulate(gradient, low, lora.Scale);
        low.Dispose();
        dlow = gradient.matmul(lora.lora_B.Cast(gradient.dtype)).DetachFromDisposeScope();
        return accumulateInto ?? dx.MoveToOuterDisposeScope();
    }

    public override void WeightGradient(Tensor gradient, Tensor input)
    {
        using var scope = NewDisposeScope();
        lora.lora_A.Accumulate(dlow!, Dropped(input, mask), lora.Scale);
        dlow!.Dispose();
        inner.WeightGradient(gradient, input);
    }
}
