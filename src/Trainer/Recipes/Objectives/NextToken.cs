using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using Memopt.Trainer.Models;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes.Objectives;

/// <summary>Supervised fine-tuning: cross-entropy of the next token at every position that carries loss.</summary>
internal sealed class NextToken : IObjective
{
    public long Terms(MicroBatch batch) => batch.Targets.Length;

    public (Tensor Sum, Pullback Backward) Loss(
        Decoder model,
        Tensor hidden,
        DeviceBatch batch,
        double scale,
        ForwardContext context
    )
    {
        var rows = batch[MicroBatch.LossPositionsInput];
        var (sum, _, backward) = ChunkedCrossEntropy.Loss(
            model.lm_head,
            hidden,
            rows,
            batch[MicroBatch.LabelsInput],
            scale,
            context,
            tensor: model.Tensor
        );
        return (sum, backward!);
    }
}
