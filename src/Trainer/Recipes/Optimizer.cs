using Memopt.Trainer.Kernels;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>AdamW over all trained weights as flat fp32 arrays of which the parameters are slices: a step is two launches whatever the number of modules.</summary>
public sealed class Optimizer : IDisposable
{
    private readonly TrainConfig config;
    private readonly Tensor value, gradient, mean, square;
    private readonly Tensor? copy, scratch;

    /// <param name="trained">What it moves; each becomes a slice of its arrays.</param>
    /// <param name="config">Rates and decays.</param>
    /// <param name="device">Where the arrays lie.</param>
    /// <param name="compute">Type of the activations; a copy in it is kept beside the values where it is not fp32.</param>
    public Optimizer(IReadOnlyList<Parameter> trained, TrainConfig config, Device device, ScalarType compute = ScalarType.Float32)
    {
        this.config = config;
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var shapes = trained.Select(p => p.Value.shape).ToList();
        var count = trained.Sum(p => p.Value.numel());
        Tensor[] Slices(Tensor whole)
        {
            long at = 0;
            return [.. shapes.Select(shape =>
            {
                var size = shape.Aggregate(1L, (a, b) => a * b);
                return whole.narrow(0, (at += size) - size, size).view(shape);
            })];
        }

        // The values first: what they were copied from is free again before there is room for the rest.
        value = empty([count], float32, device).DetachFromDisposeScope();
        foreach (var (parameter, slice) in trained.Zip(Slices(value)))
            parameter.MoveTo(slice);
        copy = compute == float32 ? null : value.to(compute).DetachFromDisposeScope();
        gradient = zeros([count], float32, device).DetachFromDisposeScope();
        mean = zeros([count], float32, device).DetachFromDisposeScope();
        square = zeros([count], float32, device).DetachFromDisposeScope();
        scratch = device.type == DeviceType.CUDA ? AdamW.Scratch(device).DetachFromDisposeScope() : null;
        var (gradients, copies) = (Slices(gradient), copy is null ? null : Slices(copy));
        for (var i = 0; i < trained.Count; i++)
            trained[i].Train(gradients[i], copies?[i]);
        Count = count;
    }

    /// <summary>Trained weights.</summary>
    public long Count { get; }

    /// <summary>Weights and moments, by the names of torch.optim's state.</summary>
    public IReadOnlyList<(string Name, Tensor Tensor)> State => [("value", value), ("exp_avg", mean), ("exp_avg_sq", square)];

    /// <summary>Called when the state was read from a checkpoint.</summary>
    public void Restored() => copy?.copy_(value);

    /// <summary>L2 norm of the whole gradient, fp32, ().</summary>
    /// <param name="unscale">Factor that takes a loss scale off.</param>
    public Tensor Norm(double unscale = 1) => AdamW.Norm(gradient, unscale, scratch);

    /// <summary>One step; afterwards the gradient is zero. A norm that is not finite leaves the weights as they were.</summary>
    /// <param name="step">From 1, for bias correction.</param>
    /// <param name="rate">Learning rate.</param>
    /// <param name="norm">Gradient norm before clipping, from <see cref="Norm"/>.</param>
    /// <param name="unscale">As there.</param>
    public void Step(int step, double rate, Tensor norm, double unscale = 1) =>
        AdamW.Step(value, gradient, mean, square, copy, norm, new(step, rate, config.WeightDecay, config.Betas[0], config.Betas[1], config.Epsilon, config.Clip, unscale));

    public void Dispose()
    {
        foreach (var tensor in new[] { value, gradient, mean, square, copy, scratch })
            tensor?.Dispose();
    }
}
