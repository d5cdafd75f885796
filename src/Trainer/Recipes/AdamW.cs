using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>
/// AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101) as torch.optim computes it, over all trained weights as one flat fp32 buffer:
/// a step is a few operations whatever the number of modules.
/// </summary>
public sealed class AdamW : IDisposable
{
    private readonly TrainConfig config;
    private readonly Tensor value, gradient, mean, square;

    public AdamW(IReadOnlyList<Parameter> trained, TrainConfig config, Device device)
    {
        this.config = config;
        var count = trained.Sum(p => p.Value.numel());
        value = empty([count], float32, device).DetachFromDisposeScope();
        gradient = zeros([count], float32, device).DetachFromDisposeScope();
        mean = zeros([count], float32, device).DetachFromDisposeScope();
        square = zeros([count], float32, device).DetachFromDisposeScope();
        long at = 0;
        using var scope = NewDisposeScope();
        using var off = no_grad();
        foreach (var parameter in trained)
        {
            var size = parameter.Value.numel();
            parameter.Train(value.narrow(0, at, size).view(parameter.Value.shape), gradient.narrow(0, at, size).view(parameter.Value.shape));
            at += size;
        }
        Count = count;
    }

    /// <summary>Trained weights.</summary>
    public long Count { get; }

    /// <summary>Weights and moments, by the names of torch.optim's state.</summary>
    public IReadOnlyList<(string Name, Tensor Tensor)> State => [("value", value), ("exp_avg", mean), ("exp_avg_sq", square)];

    /// <summary>L2 norm of the whole gradient, ().</summary>
    public Tensor Norm() => gradient.norm();

    /// <summary>One step; afterwards the gradient is zero.</summary>
    /// <param name="step">From 1, for bias correction.</param>
    /// <param name="rate">Learning rate.</param>
    /// <param name="norm">Gradient norm before clipping.</param>
    public void Step(int step, double rate, double norm)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var (b1, b2) = (config.Betas[0], config.Betas[1]);
        if (config.Clip > 0)
            gradient.mul_(Math.Min(1, config.Clip / (norm + 1e-6)));
        if (config.WeightDecay > 0)
            value.mul_(1 - rate * config.WeightDecay);
        mean.mul_(b1).add_(gradient, 1 - b1);
        square.mul_(b2).addcmul_(gradient, gradient, 1 - b2);
        var spread = square.sqrt().div_(Math.Sqrt(1 - Math.Pow(b2, step))).add_(config.Epsilon);
        value.addcdiv_(mean, spread, -rate / (1 - Math.Pow(b1, step)));
        gradient.zero_();
    }

    public void Dispose()
    {
        foreach (var tensor in new[] { value, gradient, mean, square })
            tensor.Dispose();
    }
}
