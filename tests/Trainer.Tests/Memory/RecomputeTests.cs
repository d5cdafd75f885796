using Memopt.Trainer.Adapters;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Optim;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Memory;

[Collection(ExclusiveCollection.Name)]
public sealed class RecomputeTests
{
    [Fact]
    public void Recomputation_lowers_the_peak_of_live_tensor_bytes()
    {
        long Peak(bool recompute)
        {
            using var scope = NewDisposeScope();
            using var model = Nano();
            if (recompute)
                model.RunLayer = Recompute.Layers(model.layers.Length - 1, SavedForBackward.Both);
            var meter = new Meter();
            var run = model.RunLayer;
            model.RunLayer = (layer, x, context) =>
            {
                var result = run(layer, x, context);
                meter.Sample();
                return result;
            };
            Learn(model, 4, 64);
            // The least of several: .NET's compiler takes megabytes of the same heap for a while, tensors are there
            // every time.
            return Enumerable
                .Range(0, 8)
                .Min(_ =>
                {
                    meter.Reset();
                    var before = meter.Now();
                    Learn(model, 4, 64);
                    return meter.Peak - before;
                });
        }

        var (kept, recomputed) = (Peak(false), Peak(true));
        Assert.True(recomputed < kept / 3, $"{recomputed:N0} bytes recomputed, {kept:N0} kept");
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Training_steps_leave_no_tensors_alive(bool recompute)
    {
        using var model = Load(new Shape(64, 128, 4, 4, 2, 4096).Folder());
        using var optimizer = new Optimizer(
            AdapterPass.Trained(model, AdapterKind.Lora, BiasMode.None),
            new TrainConfig(),
            model.Device
        );
        if (recompute)
            model.RunLayer = Recompute.Layers(model.layers.Length - 1, SavedForBackward.Both);
        // What a step keeps shows in every twenty. .NET's compiler takes and gives back megabytes of the same heap, at
        // first in most of them: looks go on until some were still.
        var grown = new List<long>();
        var (tensors, bytes) = (0L, 0L);
        for (var step = 1; step <= 1000 && grown.Count(Still) < 4; step++)
        {
            using (NewDisposeScope())
            {
                Learn(model, 1, 4);
                optimizer.Step(step, 1e-3, optimizer.Norm());
            }
            if (step % 20 != 0)
                continue;
            // Numbers handed to libtorch are not in scopes: the collector frees them, in a training between steps
            // (Native/NoGcScope).
            GC.Collect();
            GC.WaitForPendingFinalizers();
            var now = (Tensors: DisposeScopeManager.Statistics.ThreadTotalLiveCount, Bytes: new Meter().Now());
            if (step > 20)
            {
                Assert.Equal(tensors, now.Tensors);
                grown.Add(now.Bytes - bytes);
            }
            (tensors, bytes) = now;
        }
        Assert.True(grown.Count(Still) >= 4, $"bytes more every 20 steps: {string.Join(", ", grown)}");

        static bool Still(long more) => Math.Abs(more) < 20_000;
    }

    private static Decoder Nano() => Load(TestBackend.Nano);

    private static Decoder Load(string folder)
    {
        var spec = ModelSpec.Read(folder);
        using var weights = new WeightStream(folder, spec, float32, CPU, new(float32, module => module != "lm_head"));
        var model = new Decoder(spec, weights, float32, CPU);
        AdapterPass.Attach(model, new AdapterConfig { Rank = 4 }, 1);
        return model;
    }

    private static void Learn(Decoder model, int count, int length)
    {
        using var scope = NewDisposeScope();
        using var context = model.NewContext(length, needsGradient: true, seed: 1);
        var ids = arange(count * length, int64).remainder(4000).reshape(count, length);
        var (hidden, backward) = model.Forward(ids, context);
        var rows = arange(0, count * length - 1, int64);
        var (sum, _, lossBack) = ChunkedCrossEntropy.Loss(
            model.lm_head,
            hidden,
            rows,
            ids.reshape(-1).narrow(0, 1, count * length - 1),
            1e-3,
            context
        );
        backward!(lossBack!(sum));
    }
}
