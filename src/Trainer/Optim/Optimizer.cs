using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>AdamW over all trained weights as flat fp32 arrays of which the parameters are slices: a step is two
/// launches whatever the number of modules. Values and moments may lie on the host; a step then brings them to the
/// device a piece at a time and back, with the same arithmetic. With several ranks they may be sharded: a rank moves
/// its shard, and the ranks gather the weights in the compute type.
/// </summary>
internal sealed class Optimizer : IDisposable
{
    private readonly TrainConfig config;
    private readonly IReadOnlyList<TrainedUnit> units;
    private readonly Device device;
    private readonly ScalarType compute;
    private readonly IProcessGroup group,
        stages;
    private readonly Tensor? scratch;
    private readonly TensorShards tensorShards;
    private readonly bool isTensorParallel;
    private readonly ShardedCopy? sharded;
    private Tensor value,
        mean,
        square;
    private Tensor? copy;
    private HostArrays? host;

    /// <param name="units">What it moves; each parameter becomes a slice of its arrays.</param>
    /// <param name="config">Rates and decays.</param>
    /// <param name="device">Where the gradient lies and the arithmetic is done.</param>
    /// <param name="compute">Type of the activations; a copy in it is kept beside the values where they do not serve
    /// themselves.</param>
    /// <param name="onHost">Whether values and moments lie on the host from the beginning.</param>
    /// <param name="group">The ranks; null is this process alone.</param>
    /// <param name="strategy">What the ranks shard.</param>
    /// <param name="tensor">The ranks that share the matrices; null where this one has all of them.</param>
    /// <param name="weights">The stream of the layers' weights; those that it holds and that are trained are divided
    /// among the ranks (ZeRO-3).</param>
    /// <param name="stages">The stages of the pipeline, whose gradients have one norm; null is this one alone.</param>
    public Optimizer(
        IReadOnlyList<TrainedUnit> units,
        TrainConfig config,
        Device device,
        ScalarType compute = ScalarType.Float32,
        bool onHost = false,
        IProcessGroup? group = null,
        DistributedStrategy strategy = DistributedStrategy.Ddp,
        IProcessGroup? tensor = null,
        LayerStream? weights = null,
        IProcessGroup? stages = null
    )
    {
        var divided = weights is { HoldsTrained: true } ? weights : null;
        (this.config, this.units, this.device, this.compute) = (config, units, device, compute);
        this.group = group ?? new SingleProcessGroup();
        this.stages = stages ?? new SingleProcessGroup();
        using var scope = NewDisposeScope();
        using var off = no_grad();
        Layout = new(
            units.Select(unit => new UnitRange(unit.Start, unit.Count, unit.IsCopy)),
            strategy == DistributedStrategy.Ddp ? 1 : this.group.Size
        );
        tensorShards = new(units, Layout, tensor ?? new SingleProcessGroup(), this.group);
        isTensorParallel = tensor is { Size: > 1 };
        var place = onHost ? CPU : device;

        // The values first: the memory that they were copied from is free again before the rest is allocated.
        value = zeros([Layout.ShardSize], float32, place).DetachFromDisposeScope();
        if (IsSharded)
            sharded = new(units, Layout, this.group, compute, device, value, divided);
        else
            MoveInto(value);
        if (device.type == DeviceType.CUDA)
            Cuda.EmptyCache(device);
        Gradient =
            IsSharded && (strategy == DistributedStrategy.Zero2 || divided is not null)
                ? new ShardedGradient(units, Layout, this.group, device)
                : new WholeGradient(units, Layout, this.group, device);
        mean = zeros([Layout.ShardSize], float32, place).DetachFromDisposeScope();
        square = zeros([Layout.ShardSize], float32, place).DetachFromDisposeScope();
        scratch = device.type == DeviceType.CUDA ? AdamW.Scratch(device).DetachFromDisposeScope() : null;
        if (onHost)
            host = new([value, mean, square], device);
        MakeCopy();
        host?.AllocateBuffers();
    }

    /// <summary>Weights that the whole model trains. All ranks call it.</summary>
    public long TrainedWeights() =>
        stages.Agree(
            [units.Where(unit => !unit.IsCopy).SelectMany(unit => unit.Parameters).Sum(p => p.WholeCount)],
            ReduceOp.Sum
        )[0];

    /// <summary>How its arrays are divided among the ranks.</summary>
    public ShardLayout Layout { get; }

    /// <summary>Whether each rank moves a part of the weights only.</summary>
    public bool IsSharded => Layout.Ranks > 1;

    /// <summary>The gradient.</summary>
    public Gradient Gradient { get; }

    /// <summary>Whether values and moments lie on the host.</summary>
    public bool OnHost => host is not null;

    /// <summary>Weights and moments of this rank's shard, by the names of torch.optim's state; good until
    /// <see cref="OffloadToHost"/>.</summary>
    public IReadOnlyList<(string Name, Tensor Tensor)> State =>
        [("value", value), ("exp_avg", mean), ("exp_avg_sq", square)];

    /// <summary>Moves values and moments to the host.</summary>
    public void OffloadToHost()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        if (host is not null)
        {
            MakeCopy(); // a previous call lacked the memory for it
            host.AllocateBuffers();
            return;
        }
        // All three, and pinned, before anything is let go of: a host without room leaves everything as it was.
        Tensor[] arrays = [value, mean, square],
            moved = [.. arrays.Select(array => array.cpu())];
        var made = new HostArrays(moved, device);
        if (!IsSharded)
            MoveInto(moved[0]); // the same values again
        foreach (var array in arrays)
            array.Dispose();
        (value, mean, square) = (
            moved[0].DetachFromDisposeScope(),
            moved[1].DetachFromDisposeScope(),
            moved[2].DetachFromDisposeScope()
        );
        host = made;
        MakeCopy();
        host.AllocateBuffers();
    }

    /// <summary>Adds the bytes of its arrays.</summary>
    public void Measure(MeasuredRows rows, AdapterKind kind)
    {
        var trained = MemoryPlan.TrainedRow(kind);
        var onHost = OnHost && device.type != DeviceType.CPU;
        rows.Add(onHost ? MemoryPlan.HostOptimizer : trained, Bytes(value));
        rows.Add(onHost ? MemoryPlan.HostOptimizer : MemoryPlan.Optimizer, Bytes(mean) + Bytes(square));
        rows.Add(trained, (copy is null ? 0 : Bytes(copy)) + (sharded is null ? 0 : Bytes(sharded.Replicated)));
        rows.Add(MemoryPlan.Gradients, Gradient.Bytes);
        rows.Add(MemoryPlan.Optimizer, (scratch is null ? 0 : Bytes(scratch)) + (host?.Buffers.Sum(Bytes) ?? 0));

        static long Bytes(Tensor tensor) => tensor.numel() * tensor.element_size();
    }

    /// <summary>Called when the state was read from a checkpoint; on all ranks together where it is sharded.</summary>
    public void SyncComputeCopy()
    {
        using var scope = NewDisposeScope();
        copy?.copy_(value);
        sharded?.Sync(value);
    }

    /// <summary>A sum over the weights that all ranks hold: equal on ranks that hold the same on devices of one
    /// kind.</summary>
    public unsafe long Checksum()
    {
        var replicated = sharded?.Replicated ?? value;
        if (replicated.device_type != DeviceType.CPU)
        {
            using var scope = NewDisposeScope();
            return BitConverter.DoubleToInt64Bits(replicated.sum(float64).cpu().item<double>());
        }
        // Of the bits: a sum of numbers would depend on the number of threads.
        long sum = 0;
        var bits = (byte*)Aten.DataPointer(replicated);
        var bytes = replicated.numel() * replicated.element_size();
        long at = 0;
        for (; at + 4 <= bytes; at += 4)
            sum = unchecked(sum + *(int*)(bits + at));
        for (; at < bytes; at++)
            sum = unchecked(sum + bits[at]);
        return sum;
    }

    /// <summary>L2 norm of the sum of the gradients of all ranks, fp32, (). Copies of weights that another stage has
    /// are not counted.</summary>
    /// <param name="unscale">Factor that takes a loss scale off.</param>
    public Tensor Norm(double unscale = 1)
    {
        if (!IsSharded && !isTensorParallel && stages.Size == 1)
            return AdamW.Norm(Gradient.Own, unscale, scratch);
        using var scope = NewDisposeScope();
        var copies = Layout.Units.Where(unit => unit.IsCopy).Sum(unit => unit.Slice);
        var squares = tensorShards.SquaredNorm(
            part => AdamW.SquaredNorm(part, unscale, scratch),
            Gradient.Own.narrow(0, 0, Layout.ShardSize - copies)
        );
        stages.AllReduce(squares);
        return squares.sqrt().to(float32).MoveToOuterDisposeScope();
    }

    /// <summary>One step; afterwards the gradient is zero. A norm that is not finite leaves the weights as they were.
    /// Takes no memory.</summary>
    /// <param name="step">From 1, for bias correction.</param>
    /// <param name="rate">Learning rate.</param>
    /// <param name="norm">Gradient norm before clipping, from <see cref="Norm"/>.</param>
    /// <param name="unscale">As there.</param>
    public void Step(int step, double rate, Tensor norm, double unscale = 1)
    {
        var made = new AdamWStep(
            step,
            rate,
            config.WeightDecay,
            config.Betas[0],
            config.Betas[1],
            config.Epsilon,
            config.Clip,
            unscale
        );
        if (host is null)
            Move([value, mean, square], 0, Layout.ShardSize, norm, made);
        else
            host.ForEach((arrays, from, count) => Move(arrays, from, count, norm, made));
        sharded?.Gather();
    }

    /// <summary>Sums over the ranks what each holds a part of: the gradient of the step.</summary>
    public void ReduceGradient()
    {
        tensorShards.ReduceGradient();
        Gradient.Reduce();
    }

    /// <summary>How the weights lie in the arrays of <see cref="GatherState"/>.</summary>
    public ShardLayout WholeLayout => tensorShards.WholeLayout;

    /// <summary>Whether a checkpoint holds arrays of the whole weights, from <see cref="GatherState"/>: where tensor
    /// parallel ranks share them. Else each rank writes its shard.</summary>
    public bool WritesWhole => isTensorParallel;

    /// <summary>The state of the whole weights by the names of <see cref="State"/>, on the host of the main rank; empty
    /// on the others. All ranks call it. The caller disposes the tensors.</summary>
    public IReadOnlyList<(string Name, Tensor Tensor)> GatherState() =>
        [
            .. State
                .Select(array => (array.Name, Whole: tensorShards.Gather(array.Tensor, device)))
                .Where(array => array.Whole is not null)
                .Select(array => (array.Name, array.Whole!)),
        ];

    /// <summary>Takes this rank's shard of a state of the whole weights.</summary>
    public void ScatterState(IReadOnlyList<(string Name, Tensor Tensor)> whole)
    {
        foreach (var ((_, shard), (_, array)) in State.Zip(whole))
            tensorShards.Scatter(array, shard);
    }

    /// <summary>Gathers the weights in fp32 in the host memory of the main rank, whose parameters hold them until the
    /// result is disposed. All ranks call it.</summary>
    public IDisposable? GatherValues()
    {
        if (!IsSharded && !isTensorParallel)
            return null;
        using var scope = NewDisposeScope();
        if (tensorShards.Gather(value, device) is { } whole)
        {
            foreach (var (parameter, part) in tensorShards.Slices(whole))
                parameter.Bind(part);
        }
        return new GatheredValues(this);
    }

    public void Dispose()
    {
        host?.Dispose();
        Gradient.Dispose();
        sharded?.Dispose();
        foreach (var tensor in new[] { value, mean, square, copy, scratch })
            tensor?.Dispose();
    }

    /// <summary>The optimizer's arithmetic on a part of the shard.</summary>
    /// <param name="arrays">Value, mean and square of the part.</param>
    /// <param name="from">Where the part begins.</param>
    /// <param name="count">Its length.</param>
    /// <param name="norm">Of the gradient.</param>
    /// <param name="step">Settings.</param>
    private void Move(Tensor[] arrays, long from, long count, Tensor norm, AdamWStep step)
    {
        foreach (var (first, length, target) in sharded?.Slices ?? [(0, Layout.WholeSize, copy)])
        {
            var (begin, end) = (Math.Max(first, from), Math.Min(first + length, from + count));
            if (begin >= end)
                continue;
            using var scope = NewDisposeScope();
            Tensor Part(int array) => arrays[array].narrow(0, begin - from, end - begin);
            AdamW.Step(
                Part(0),
                Gradient.Own.narrow(0, begin, end - begin),
                Part(1),
                Part(2),
                target?.narrow(0, begin - first, end - begin),
                norm,
                step
            );
        }
    }

    /// <summary>Makes the parameters slices of an array of all weights.</summary>
    private void MoveInto(Tensor whole)
    {
        foreach (var (parameter, slice) in Layout.Slices(units, whole))
            parameter.MoveTo(slice);
    }

    /// <summary>The copy that products read, and the parameters' slices of it. Sharded values have one
    /// always.</summary>
    private void MakeCopy()
    {
        if (IsSharded || (compute == float32 && (!OnHost || device.type == DeviceType.CPU)))
            return;
        if (copy is null)
        {
            copy = empty([Layout.WholeSize], compute, device).DetachFromDisposeScope();
            copy.copy_(value);
        }
        foreach (var (parameter, slice) in Layout.Slices(units, copy))
            parameter.BindCopy(slice);
    }

    /// <summary>Returns the parameters to their slices of the arrays.</summary>
    private sealed class GatheredValues(Optimizer optimizer) : IDisposable
    {
        public void Dispose()
        {
            using var scope = NewDisposeScope();
            optimizer.sharded?.Bind();
            if (optimizer.IsSharded)
                return;
            foreach (var (parameter, slice) in optimizer.Layout.Slices(optimizer.units, optimizer.value))
                parameter.Bind(slice);
        }
    }
}
