using Memopt.Trainer.Kernels;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Adapters;

/// <summary>
/// LoRA pairs of one rank and scale around linears with the same input: their A's lie one after another in the optimizer's arrays, so x is
/// multiplied by all at once, and so are the gradients on the way back. Each product alone would read x again and be over as soon as it began.
/// </summary>
internal sealed class LoraGroup(LoraLinear[] loras) : Together(loras)
{
    private readonly int rank = loras[0].Rank;
    private readonly double scale = loras[0].Scale;

    public override Shared forward(Tensor x, Pass pass, Wanted wanted)
    {
        using var scope = NewDisposeScope();
        var type = x.dtype;
        if (Stacked(lora => lora.lora_A.As(type)) is not { } downs)
        {
            var apart = base.forward(x, pass, wanted);
            scope.MoveAllOut();
            return apart;
        }
        var lows = nn.functional.linear(x, downs);                           // (N, linears · r)
        var inner = Array.ConvertAll(loras, lora => lora.Inner.forward(x, pass, wanted));
        var parts = new Out[loras.Length];
        for (var i = 0; i < loras.Length; i++)
        {
            var (low, up) = (Slice(lows, i), loras[i].lora_B.As(type));
            var rest = wanted.HasFlag(Wanted.ValueApart) ? new LowRank(low, up, scale) : null;
            if (rest is null)
                inner[i].Value.addmm_(low, up.t(), 1, (float)scale);
            parts[i] = new(inner[i].Value, null, Rest: rest);
        }
        scope.MoveAllOut();
        return new(parts, !pass.Learns ? null : (gradients, onto) =>
        {
            using var scope = NewDisposeScope();
            var dx = onto;
            var dlows = empty_like(lows);
            for (var i = 0; i < loras.Length; i++)
            {
                dx = inner[i].Back!(gradients[i], dx);
                loras[i].lora_B.Accumulate(gradients[i], Slice(lows, i), scale);
                Aten.MatmulInto(gradients[i], loras[i].lora_B.As(type), Slice(dlows, i));
            }
            dx!.addmm_(dlows, downs, 1, (float)scale);
            if (Stacked(lora => lora.lora_A.Grad) is { } grads)
                grads.add_(Aten.MatmulWide(dlows.t(), x), scale);
            return onto ?? dx.MoveToOuterDisposeScope();
        });
    }

    private Tensor Slice(Tensor all, int i) => all.narrow(1, i * rank, rank);

    /// <summary>One matrix of all, (linears · r, In), if they lie one after another.</summary>
    private Tensor? Stacked(Func<LoraLinear, Tensor?> part)
    {
        if (part(loras[0]) is not { } first)
            return null;
        for (var i = 1; i < loras.Length; i++)
        {
            if (part(loras[i]) is not { } next || Aten.DataPointer(next) != Aten.DataPointer(first) + (nint)(i * first.numel() * first.element_size()))
                return null;
        }
        return first.as_strided([loras.Length * rank, loras[0].In], [loras[0].In, 1], first.storage_offset());
    }
}
