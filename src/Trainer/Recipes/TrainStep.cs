using System.Diagnostics;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Optim;
using Memopt.Trainer.Recipes.Objectives;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>One optimizer step: forward and backward of each micro-batch, the gradient norm, the optimizer. The host
/// waits for the device once, to read the loss.</summary>
/// <param name="model">The model, with its memory passes applied.</param>
/// <param name="optimizer">The optimizer of the trained weights.</param>
/// <param name="schedule">Learning rates.</param>
/// <param name="config">Seeds, determinism.</param>
/// <param name="scaler">Loss scale of fp16; null for wider types.</param>
/// <param name="meter">Receives peaks.</param>
/// <param name="objective">The loss; null is that of the next token.</param>
internal sealed class TrainStep(
    Decoder model,
    Optimizer optimizer,
    Schedule schedule,
    TrainConfig config,
    GradScaler? scaler,
    Meter meter,
    IObjective? objective = null
)
{
    private readonly IObjective objective = objective ?? new NextToken();

    /// <summary>Most bytes saved between forward and backward in the steps that were measured.</summary>
    public long Activations { get; private set; }

    /// <summary>Most bytes beyond the activations in the steps that were measured, fragmentation included.</summary>
    public long WorkingSet { get; private set; }

    /// <summary>Forgets the measurements: the next steps need other memory.</summary>
    public void Remeasure() => (Activations, WorkingSet) = (0, 0);

    /// <param name="index">From 0.</param>
    /// <param name="parts">Its micro-batches.</param>
    /// <param name="measure">Whether to read the meter within the step too, which costs time.</param>
    public StepRow Run(int index, IReadOnlyList<MicroBatch> parts, bool measure = false)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var watch = Stopwatch.StartNew();
        meter.Reset();
        var targets = parts.Sum(objective.Terms);
        double loss,
            norm;
        while (true)
        {
            var sum = zeros([], float64, model.Device);
            for (var part = 0; part < parts.Count; part++)
                sum.add_(
                    ForwardBackward(
                        parts[part],
                        (scaler?.Value ?? 1) / targets,
                        ((long)config.Seed << 40) ^ ((long)index << 12) ^ part,
                        measure
                    )
                );
            meter.Sample();
            var length = optimizer.Norm(1 / (scaler?.Value ?? 1));
            // The last that needs memory; from here on the step is made.
            var both = stack([sum, length.to(float64)]);
            optimizer.Step(index + 1, schedule.At(index), length, 1 / (scaler?.Value ?? 1));
            var read = both.cpu().data<double>().ToArray();
            (loss, norm) = (read[0] / targets, read[1]);
            if (double.IsFinite(norm) && double.IsFinite(loss))
            {
                scaler?.Grow();
                break;
            }
            // In fp16 a gradient may have been too large for its scale: the optimizer let it pass, and the same step is
            // made with half of it.
            if (double.IsFinite(loss) && scaler?.Backoff() == true)
                continue;
            throw new UserFault(
                $"The loss is no longer a number at step {index + 1}.",
                found: $"loss {loss}, gradient norm {norm}",
                next: $"lower train.learningRate (now {config.LearningRate}) or set train.clip, and run again; "
                    + "the last checkpoint is whole"
            )
            {
                Failed = true,
            };
        }
        var seconds = watch.Elapsed.TotalSeconds;
        return new(
            index + 1,
            loss,
            schedule.At(index),
            norm,
            targets,
            parts.Sum(part => part.Tokens) / seconds,
            meter.RunPeak,
            seconds
        );
    }

    /// <summary>Runs forward and backward of a micro-batch and drops the gradient: takes the memory of a step and
    /// changes no weight.</summary>
    public void Rehearse(MicroBatch batch)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        meter.Reset();
        ForwardBackward(batch, (scaler?.Value ?? 1) / objective.Terms(batch), 0, measure: true);
        optimizer.Norm();
        ZeroGrad();
    }

    /// <summary>Sets all gradients to zero, after a step that was not finished.</summary>
    public void ZeroGrad() => optimizer.ZeroGrad();

    /// <summary>Forward and backward of one micro-batch; accumulates gradients and returns the summed loss, fp64
    /// ().</summary>
    private Tensor ForwardBackward(MicroBatch batch, double factor, long seed, bool measure)
    {
        using var scope = NewDisposeScope();
        var inputs = new DeviceBatch(batch, model.Device);
        var start = measure ? meter.Sample() : 0;
        using var context = model.NewContext(
            batch.Length,
            inputs.Find(MicroBatch.PositionsInput),
            batch.Documents,
            needsGradient: true,
            seed: seed,
            deterministic: config.Deterministic
        );
        var (hidden, backward) = model.Forward(inputs[MicroBatch.IdsInput], context);
        if (measure)
            Activations = Math.Max(Activations, meter.Sample() - start);
        var (loss, lossBackward) = objective.Loss(model, hidden, inputs, factor, context);
        if (measure)
            meter.Sample();
        hidden.Dispose();
        backward!(lossBackward(loss)).Dispose();
        if (measure)
            WorkingSet = Math.Max(WorkingSet, meter.Peak - start - Activations);
        return loss.MoveToOuterDisposeScope();
    }
}
