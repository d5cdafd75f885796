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
/// <param name="model">The model, or a stage of it, with its memory passes applied.</param>
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
    private readonly PipelineSchedule stages = new((world ?? World.Single).Mesh.Pipeline, model);

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
            SumTiedEmbeddings();
            optimizer.ReduceGradient();
            world.Mesh.Data.AllReduce(sum);
            world.Mesh.Pipeline.Group.AllReduce(sum); // of the last stage
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
    /// <param name="batch">The micro-batch.</param>
    /// <param name="count">How often, where the stages of a pipeline hold several at once.</param>
    public void Rehearse(MicroBatch batch, int count = 1)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        meter.Reset();
        using var work = new Work([.. Enumerable.Repeat(model.Own(batch), count)], zeros([], float64, model.Device))
        {
            Factor = (scaler?.Value ?? 1) / objective.Terms(batch),
            Measure = true,
        };
        try
        {
            Compute(work);
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
        using var work = new Work([.. batch.Parts.Select(model.Own)], sum)
        {
            Seed = ((long)config.Seed << 40) ^ ((long)index << 12),
            First = batch.First,
            Factor = factor,
            Measure = measure,
        };
        try
        {
            Compute(work);
            CatchUp();
            meter.Sample();
            return null;
        }
        catch (Exception e) when (world.Size > 1 && OutOfMemory.Is(e))
        {
            CatchUp();
            optimizer.Gradient.Invalidate();
            return e.Message;
        }

        // Other ranks wait for this one in the collectives of each of their micro-batches.
        void CatchUp()
        {
            model.Collectives.Finish();
            for (; work.Begun < batch.Most; work.Begun++)
                model.Collectives.Skip(work.Parts.ElementAtOrDefault(work.Begun), backward: true);
        }
    }

    /// <summary>Forward and backward of micro-batches, in the order of this stage; accumulates gradients and the summed
    /// loss.</summary>
    private void Compute(Work work) =>
        stages.Run(
            work.Parts,
            (pass, received) =>
                pass.IsForward ? Forward(work, pass.Number, received) : Backward(work, pass.Number, received),
            work.Dispose
        );

    private Tensor? Forward(Work work, int number, Tensor? received)
    {
        work.Begun++;
        // Before memory can run out: from here on the other ranks count on this one.
        model.Collectives.Begin(work.Parts[number], backward: true);
        optimizer.Gradient.BeginMicroBatch();
        var pass = work.InFlight[number] = new(model, work.Parts[number]);
        if (work is { Measure: true, InFlight.Count: 1 })
            work.Start = meter.Sample();
        var seed = work.Seed ^ (long)(work.First + number);
        var hidden = pass.Forward(received, seed, config.Deterministic);
        if (work.Measure)
            Activations = Math.Max(Activations, meter.Sample() - work.Start);
        return hidden;
    }

    private Tensor? Backward(Work work, int number, Tensor? received)
    {
        using var scope = NewDisposeScope();
        var pass = work.InFlight[number];
        if (received is null)
        {
            (var loss, received) = pass.Loss(objective, work.Factor, () => _ = work.Measure ? meter.Sample() : 0);
            work.Sum.add_(loss);
        }
        var gradient = pass.Backward(received).DetachFromDisposeScope();
        if (model.Spec.Stage.IsFirst)
            gradient.Dispose();
        optimizer.Gradient.EndMicroBatch();
        if (work.Measure)
            WorkingSet = Math.Max(WorkingSet, meter.Peak - work.Start - Activations);
        work.InFlight.Remove(number);
        pass.Dispose();
        return model.Spec.Stage.IsFirst ? null : gradient;
    }

    /// <summary>Adds up the gradients of the embeddings' two copies, where they are tied and the stages of the head and
    /// of the embeddings are two.</summary>
    private void SumTiedEmbeddings()
    {
        if (
            model.Spec is { TieWordEmbeddings: true, HasEmbeddings: true }
            && world.Mesh.Pipeline.Ends is { Size: > 1 } ends
            && model.embed_tokens.Grad is { } gradient
        )
            ends.AllReduce(gradient);
    }

    /// <summary>The micro-batches that a stage computes before the gradient is whole.</summary>
    /// <param name="Parts">In their order.</param>
    /// <param name="Sum">Gets the summed loss, fp64 ().</param>
    private sealed record Work(IReadOnlyList<MicroBatch> Parts, Tensor Sum) : IDisposable
    {
        /// <summary>Dropout's seed of the step.</summary>
        public long Seed { get; init; }

        /// <summary>Number of the first micro-batch among those of all ranks.</summary>
        public int First { get; init; }

        /// <summary>The gradient is that of factor · sum.</summary>
        public double Factor { get; init; }

        /// <summary>Whether the meter is read.</summary>
        public bool Measure { get; init; }

        /// <summary>Micro-batches whose forward was begun, or that were given up.</summary>
        public int Begun { get; set; }

        /// <summary>Bytes before the first of those that are in flight.</summary>
        public long Start { get; set; }

        /// <summary>Those between forward and backward.</summary>
        public Dictionary<int, MicroBatchPass> InFlight { get; } = [];

        public void Dispose()
        {
            foreach (var pass in InFlight.Values)
                pass.Dispose();
            InFlight.Clear();
        }
    }
}
