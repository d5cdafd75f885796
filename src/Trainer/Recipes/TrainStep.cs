using System.Diagnostics;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Optim;
using Memopt.Trainer.Recipes.Objectives;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>One optimizer step: forward and backward of each micro-batch of this rank, the sum of the gradients of all
/// ranks, its norm, the optimizer. The host waits for the device once, to read the loss.</summary>
/// <param name="model">The model, with its memory passes applied.</param>
/// <param name="optimizer">The optimizer of the trained weights.</param>
/// <param name="schedule">Learning rates.</param>
/// <param name="config">Seeds, determinism.</param>
/// <param name="scaler">Loss scale of fp16; null for wider types.</param>
/// <param name="meter">Receives peaks.</param>
/// <param name="world">The ranks that make the step; null is this process alone.</param>
/// <param name="objective">The loss; null is that of the next token.</param>
internal sealed class TrainStep(
    Decoder model,
    Optimizer optimizer,
    Schedule schedule,
    TrainConfig config,
    GradScaler? scaler,
    Meter meter,
    World? world = null,
    IObjective? objective = null
)
{
    private readonly World world = world ?? World.Single;
    private readonly IObjective objective = objective ?? new NextToken();

    /// <summary>Most bytes saved between forward and backward in the steps that were measured.</summary>
    public long Activations { get; private set; }

    /// <summary>Most bytes beyond the activations in the steps that were measured, fragmentation included.</summary>
    public long WorkingSet { get; private set; }

    /// <summary>Forgets the measurements: the next steps need other memory.</summary>
    public void Remeasure() => (Activations, WorkingSet) = (0, 0);

    /// <summary>Terms of the loss in micro-batches: trained tokens.</summary>
    public long Terms(IReadOnlyList<MicroBatch> parts) => parts.Sum(objective.Terms);

    /// <param name="index">From 0.</param>
    /// <param name="batch">This rank's micro-batches.</param>
    /// <param name="total">Terms and tokens of all ranks; null where this is the only rank.</param>
    /// <param name="measure">Whether to read the meter within the step too, which costs time.</param>
    public StepRow Run(int index, StepBatch batch, StepTotal? total = null, bool measure = false)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var watch = Stopwatch.StartNew();
        meter.Reset();
        var (targets, tokens) = total ?? new(Terms(batch.Parts), batch.Parts.Sum(part => part.Tokens));
        double loss,
            norm;
        while (true)
        {
            var sum = zeros([], float64, model.Device);
            var exhausted = Accumulate(index, batch, (scaler?.Value ?? 1) / targets, sum, measure);
            optimizer.Gradient.Reduce();
            world.Mesh.Data.AllReduce(sum);
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
            world.ThrowIfExhausted(exhausted);
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
        return new(index + 1, loss, schedule.At(index), norm, targets, tokens / seconds, meter.RunPeak, seconds);
    }

    /// <summary>Runs forward and backward of a micro-batch and drops the gradient: takes the memory of a step and
    /// changes no weight.</summary>
    public void Rehearse(MicroBatch batch)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        meter.Reset();
        try
        {
            ForwardBackward(
                model.Own(batch),
                (scaler?.Value ?? 1) / objective.Terms(batch),
                0,
                measure: true,
                rehearsal: true
            );
        }
        finally
        {
            model.Collectives.Finish();
        }
        ZeroGrad();
    }

    /// <summary>Sets all gradients to zero, after a step that was not finished.</summary>
    public void ZeroGrad() => optimizer.Gradient.Zero();

    /// <summary>Forward and backward of the micro-batches of this rank; adds to the gradient and to the summed loss.
    /// With other ranks, which wait for this one in the sums of the gradients, memory that runs out is no exception
    /// yet: the gradient becomes NaN, on all ranks by the sum or its norm, which leaves the weights as they
    /// were.</summary>
    /// <returns>The message where memory ran out, else null.</returns>
    private string? Accumulate(int index, StepBatch batch, double factor, Tensor sum, bool measure)
    {
        var begun = 0;
        var parts = batch.Parts.Select(model.Own).ToList();
        try
        {
            for (var part = 0; part < parts.Count; part++)
            {
                begun++;
                sum.add_(
                    ForwardBackward(
                        parts[part],
                        factor,
                        ((long)config.Seed << 40) ^ ((long)index << 12) ^ (long)(batch.First + part),
                        measure
                    )
                );
            }
            CatchUp();
            meter.Sample();
            return null;
        }
        catch (Exception e) when (world.Size > 1 && OutOfMemory.Is(e))
        {
            optimizer.Gradient.Invalidate();
            CatchUp();
            return e.Message;
        }

        // Other ranks wait for this one in the collectives of each of their micro-batches.
        void CatchUp()
        {
            model.Collectives.Finish();
            optimizer.Gradient.CatchUp(begun);
            while (begun < batch.Most)
            {
                model.Collectives.Skip(parts.ElementAtOrDefault(begun), backward: true);
                optimizer.Gradient.CatchUp(++begun);
            }
        }
    }

    /// <summary>Forward and backward of one micro-batch; accumulates gradients and returns the summed loss, fp64
    /// ().</summary>
    private Tensor ForwardBackward(MicroBatch batch, double factor, long seed, bool measure, bool rehearsal = false)
    {
        using var scope = NewDisposeScope();
        // Before memory can run out: from here on the other ranks count on this one.
        model.Collectives.Begin(batch, backward: true);
        optimizer.Gradient.BeginMicroBatch(rehearsal);
        var inputs = new DeviceBatch(batch, model.Device);
        var start = measure ? meter.Sample() : 0;
        using var context = model.NewContext(
            batch.Length,
            inputs.Find(MicroBatch.PositionsInput),
            batch.Documents,
            needsGradient: true,
            seed: seed,
            deterministic: config.Deterministic,
            slice: batch.Slice
        );
        var (hidden, backward) = model.Forward(inputs[MicroBatch.IdsInput], context);
        if (measure)
            Activations = Math.Max(Activations, meter.Sample() - start);
        var (loss, lossBackward) = objective.Loss(model, hidden, inputs, factor, context);
        if (measure)
            meter.Sample();
        hidden.Dispose();
        backward!(lossBackward(loss)).Dispose();
        optimizer.Gradient.EndMicroBatch();
        if (measure)
            WorkingSet = Math.Max(WorkingSet, meter.Peak - start - Activations);
        return loss.MoveToOuterDisposeScope();
    }
}
