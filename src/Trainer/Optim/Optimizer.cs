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
/// device a piece at a time and back, with the same arithmetic.
/// </summary>
internal sealed class Optimizer : IDisposable
{
    private readonly TrainConfig config;
    private readonly IReadOnlyList<Parameter> trained;
    private readonly IReadOnlyList<long[]> shapes;
    private readonly Device device;
    private readonly ScalarType compute;
    private readonly Tensor gradient;
    private readonly Tensor? scratch;
    private Tensor value,
        mean,
        square;
    private Tensor? copy;
    private HostArrays? host;

    /// <param name="trained">What it moves; each becomes a slice of its arrays.</param>
    /// <param name="config">Rates and decays.</param>
    /// <param name="device">Where the gradient lies and the arithmetic is done.</param>
    /// <param name="compute">Type of the activations; a copy in it is kept beside the values where they do not serve
    /// themselves.</param>
    /// <param name="onHost">Whether values and moments lie on the host from the beginning.</param>
    public Optimizer(
        IReadOnlyList<Parameter> trained,
        TrainConfig config,
        Device device,
        ScalarType compute = ScalarType.Float32,
        bool onHost = false
    )
    {
        (this.config, this.trained, this.device, this.compute) = (config, trained, device, compute);
        using var scope = NewDisposeScope();
        using var off = no_grad();
        shapes = [.. trained.Select(p => p.Value.shape)];
        Count = trained.Sum(p => p.Value.numel());
        var place = onHost ? CPU : device;

        // The values first: what they were copied from is free again before there is room for the rest.
        value = empty([Count], float32, place).DetachFromDisposeScope();
        foreach (var (parameter, slice) in trained.Zip(Slices(value)))
            parameter.MoveTo(slice);
        if (device.type == DeviceType.CUDA)
            Cuda.EmptyCache(device);
        gradient = zeros([Count], float32, device).DetachFromDisposeScope();
        mean = zeros([Count], float32, place).DetachFromDisposeScope();
        square = zeros([Count], float32, place).DetachFromDisposeScope();
        scratch = device.type == DeviceType.CUDA ? AdamW.Scratch(device).DetachFromDisposeScope() : null;
        if (onHost)
            host = new([value, mean, square], device);
        MakeCopy();
        host?.AllocateBuffers();
    }

    /// <summary>Trained weights.</summary>
    public long Count { get; }

    /// <summary>Whether values and moments lie on the host.</summary>
    public bool OnHost => host is not null;

    /// <summary>Weights and moments, by the names of torch.optim's state; good until
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
        foreach (var (parameter, slice) in trained.Zip(Slices(moved[0])))
            parameter.MoveTo(slice); // the same values again
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
        rows.Add(trained, copy is null ? 0 : Bytes(copy));
        rows.Add(MemoryPlan.Gradients, Bytes(gradient));
        rows.Add(MemoryPlan.Optimizer, (scratch is null ? 0 : Bytes(scratch)) + (host?.Buffers.Sum(Bytes) ?? 0));

        static long Bytes(Tensor tensor) => tensor.numel() * tensor.element_size();
    }

    /// <summary>Called when the state was read from a checkpoint.</summary>
    public void SyncComputeCopy() => copy?.copy_(value);

    /// <summary>Makes the gradient the sum of the gradients of all ranks.</summary>
    public void AllReduceGradient(IProcessGroup group) => group.AllReduce(gradient);

    /// <summary>Makes the gradient NaN, so that a step changes no weight.</summary>
    public void InvalidateGradient() => gradient.fill_(double.NaN);

    /// <summary>A sum over the trained weights: equal on ranks that hold the same on devices of one kind.</summary>
    public unsafe long Checksum()
    {
        if (value.device_type != DeviceType.CPU)
        {
            using var scope = NewDisposeScope();
            return BitConverter.DoubleToInt64Bits(value.sum(float64).cpu().item<double>());
        }
        // Of the bits: a sum of numbers would depend on the number of threads.
        long sum = 0;
        var bits = (int*)Aten.DataPointer(value);
        for (long at = 0; at < Count; at++)
            sum = unchecked(sum + bits[at]);
        return sum;
    }

    /// <summary>Forgets a gradient that was not finished.</summary>
    public void ZeroGrad() => gradient.zero_();

    /// <summary>L2 norm of the whole gradient, fp32, ().</summary>
    /// <param name="unscale">Factor that takes a loss scale off.</param>
    public Tensor Norm(double unscale = 1) => AdamW.Norm(gradient, unscale, scratch);

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
        {
            AdamW.Step(value, gradient, mean, square, copy, norm, made);
            return;
        }
        host.ForEach(
            (arrays, from, count) =>
            {
                using var g = gradient.narrow(0, from, count);
                using var c = copy!.narrow(0, from, count);
                AdamW.Step(arrays[0], g, arrays[1], arrays[2], c, norm, made);
            }
        );
    }

    public void Dispose()
    {
        host?.Dispose();
        foreach (var tensor in new[] { value, gradient, mean, square, copy, scratch })
            tensor?.Dispose();
    }

    /// <summary>The copy that products read, and every parameter's slices.</summary>
    private void MakeCopy()
    {
        if (copy is null && (compute != float32 || (OnHost && device.type != DeviceType.CPU)))
        {
            copy = empty([Count], compute, device).DetachFromDisposeScope();
            copy.copy_(value);
        }
        var (gradients, copies) = (Slices(gradient), copy is null ? null : Slices(copy));
        for (var i = 0; i < trained.Count; i++)
            trained[i].BindGradient(gradients[i], copies?[i]);
    }

    private Tensor[] Slices(Tensor whole)
    {
        long at = 0;
        return
        [
            .. shapes.Select(shape =>
            {
                var size = shape.Aggregate(1L, (a, b) => a * b);
                return whole.narrow(0, (at += size) - size, size).view(shape);
            }),
        ];
    }

    /// <summary>Arrays of one length on the host, a piece of each at a time on the device: one piece is computed while
    /// the next comes and the last goes.</summary>
    private sealed class HostArrays : IDisposable
    {
        private readonly Tensor[] arrays;
        private readonly Device device;
        private readonly List<Tensor[]> buffers = [];
        private readonly Cuda.Stream? incoming,
            outgoing;
        private readonly Cuda.Event[] arrived = [],
            left = [];
        private readonly Cuda.Event? computed;
        private readonly long piece;

        public HostArrays(Tensor[] arrays, Device device)
        {
            (this.arrays, this.device) = (arrays, device);
            if (device.type != DeviceType.CUDA)
                return;
            piece = Math.Min(arrays[0].numel(), Footprints.OptimizerPiece);
            var pinned = 0;
            try
            {
                for (; pinned < arrays.Length; pinned++)
                    Cuda.Pin(Aten.DataPointer(arrays[pinned]), arrays[pinned].numel() * 4);
            }
            catch
            {
                while (pinned-- > 0)
                    Cuda.Unpin(Aten.DataPointer(arrays[pinned]));
                throw;
            }
            (incoming, outgoing, computed) = (new(), new(), new());
            (arrived, left) = ([new(), new()], [new(), new()]);
        }

        /// <summary>Takes the device memory for the pieces.</summary>
        public void AllocateBuffers()
        {
            while (incoming is not null && buffers.Count < 2)
            {
                using var scope = NewDisposeScope();
                buffers.Add([.. arrays.Select(_ => empty([piece], float32, device))]);
                foreach (var part in buffers[^1])
                    part.DetachFromDisposeScope();
            }
        }

        /// <summary>The device memory for the pieces.</summary>
        public IEnumerable<Tensor> Buffers => buffers.SelectMany(buffer => buffer);

        public void ForEach(Action<Tensor[], long, long> step)
        {
            AllocateBuffers();
            if (incoming is null)
            {
                step(arrays, 0, arrays[0].numel());
                return;
            }
            var total = arrays[0].numel();
            incoming.WaitForCompute(computed!); // buffers made a moment ago may have been others' until then
            for (long from = 0, n = 0; from < total; from += piece, n++)
            {
                using var scope = NewDisposeScope();
                var (count, turn) = (Math.Min(piece, total - from), (int)(n % 2));
                var buffer = buffers[turn];
                incoming!.WaitFor(left[turn]);
                for (var i = 0; i < arrays.Length; i++)
                    incoming.ToDevice(
                        Aten.DataPointer(buffer[i]),
                        Aten.DataPointer(arrays[i]) + (nint)(from * 4),
                        count * 4
                    );
                incoming.Record(arrived[turn]);
                arrived[turn].MakeComputeWait();
                step([.. buffer.Select(part => part.narrow(0, 0, count))], from, count);
                outgoing!.WaitForCompute(computed!);
                for (var i = 0; i < arrays.Length; i++)
                    outgoing.ToHost(
                        Aten.DataPointer(arrays[i]) + (nint)(from * 4),
                        Aten.DataPointer(buffer[i]),
                        count * 4
                    );
                outgoing.Record(left[turn]);
            }
            outgoing!.Wait(); // the host may read them now, and so may the next step
        }

        public void Dispose()
        {
            incoming?.Dispose();
            outgoing?.Dispose();
            computed?.Dispose();
            foreach (var @event in arrived.Concat(left))
                @event.Dispose();
            foreach (var buffer in Buffers)
                buffer.Dispose();
            foreach (var array in incoming is null ? [] : arrays)
                Cuda.Unpin(Aten.DataPointer(array));
        }
    }
}
