using Memopt.Trainer.Adapters;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Plan.Blocks;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>The model of all stages of a pipeline, to be saved: its trained weights, in the host memory of the main
/// rank. The frozen ones take no memory and have no values.</summary>
internal static class WholeModel
{
    /// <summary>Sends the trained weights of each stage to the main rank, one after another. All ranks call
    /// it.</summary>
    /// <param name="stage">This rank's part.</param>
    /// <param name="world">The ranks.</param>
    /// <param name="adapter">The adapter's settings.</param>
    /// <returns>On the main rank the model; null on the others, and where one stage has the whole model.</returns>
    public static Decoder? Gather(Decoder stage, World world, AdapterConfig adapter)
    {
        var pipeline = world.Mesh.Pipeline;
        if (pipeline.Stages == 1)
            return null;
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var own = Trained(stage);
        var each = world.Size / pipeline.Stages;
        var all = world.AllGather<List<TensorSpec>>([
            .. own.Select(parameter => new TensorSpec(parameter.Name, parameter.Value.shape)),
        ]);
        if (world.Rank % each != 0) // another pipeline, which has the same weights
            return null;
        var found = own.ToDictionary(parameter => parameter.Name, parameter => parameter.Value.alias());
        for (var from = 1; from < pipeline.Stages; from++)
        {
            foreach (var (number, tensor) in all[from * each].Index())
            {
                using var inner = NewDisposeScope();
                var sent = pipeline.Stage == from ? own[number].Value.to(stage.Device).contiguous() : null;
                var received = pipeline.IsFirst ? empty(tensor.Shape, float32, stage.Device) : null;
                pipeline.Group.Exchange(
                    sent is null ? [] : [new(sent, 0)],
                    received is null ? [] : [new(received, from)]
                );
                if (received is not null)
                    found[tensor.Name] = received.cpu().MoveToOuterDisposeScope();
            }
        }
        return pipeline.IsFirst ? Build(stage, found, adapter) : null;
    }

    /// <summary>What a stage trains; tied embeddings are the first stage's.</summary>
    private static List<Parameter> Trained(Decoder stage) =>
        [
            .. stage
                .Parameters()
                .Where(parameter =>
                    parameter.RequiresGrad && (stage.Spec.Stage.IsFirst || parameter.Name != stage.Spec.Embeddings.Name)
                ),
        ];

    private static Decoder Build(Decoder stage, Dictionary<string, Tensor> trained, AdapterConfig adapter)
    {
        var whole = new Decoder(stage.Spec.Whole, new TrainedWeights(stage.Spec.Whole, trained), stage.Type, CPU);
        using var generator = new Generator(0);
        AdapterPass.Attach(
            whole,
            module =>
                trained.TryGetValue(module + ".lora_A.weight", out var a)
                    ? new((int)a.shape[0], adapter.ScaleOf(module), a.cpu(), trained[module + ".lora_B.weight"].cpu())
                    : null,
            adapter.Dropout,
            generator
        );
        return whole;
    }

    /// <summary>Trained weights by name; the others are views of one number.</summary>
    private sealed class TrainedWeights(ModelSpec spec, Dictionary<string, Tensor> trained) : IWeightSource
    {
        private readonly Dictionary<string, long[]> shapes = spec.Tensors.ToDictionary(
            tensor => tensor.Name,
            tensor => tensor.Shape
        );

        public Parameter Weight(string name, TensorSplit? split = null, bool isPartial = false)
        {
            using var scope = NewDisposeScope();
            var parameter = new Parameter(name, zeros([], float32).expand(shapes[name]));
            if (trained.TryGetValue(name, out var value))
                parameter.Bind(value.cpu().alias());
            return parameter;
        }

        public Linear Linear(LinearSpec linear) =>
            new DenseLinear(
                linear.Name,
                Weight(linear.Name + ".weight"),
                linear.HasBias ? Weight(linear.Name + ".bias") : null
            );
    }
}
