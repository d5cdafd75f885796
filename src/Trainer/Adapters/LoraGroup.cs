using Memopt.Trainer.Autograd;
using Memopt.Trainer.Kernels;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Adapters;

/// <summary>LoRA pairs of one rank and scale around linears with the same input: their A's lie one after another in
/// the optimizer's arrays, so x is multiplied by all at once, and so are the gradients in backward. Each product alone
/// would read x again and be over as soon as it began. Linears without a pair among them are run as they are.
/// </summary>
internal sealed class LoraGroup(Linear[] linears) : LinearGroup(linears)
{
    private readonly LoraLinear[] loras = [.. linears.OfType<LoraLinear>()];

    public override GroupResult forward(Tensor x, ForwardContext context, LinearMode mode)
    {
        if (context.AdaptersDisabled)
            return base.forward(x, context, mode);
        using var scope = NewDisposeScope();
        var (type, rank, scale) = (x.dtype, loras[0].Rank, loras[0].Scale);
        if (Stacked(lora => lora.lora_A.HasCast(type) ? lora.lora_A.Cast(type) : null) is not { } downs)
        {
            var apart = base.forward(x, context, mode);
            scope.MoveAllOut();
            return apart;
        }
        Tensor Slice(Tensor all, LoraLinear lora) => all.narrow(1, Array.IndexOf(loras, lora) * rank, rank);
        var lows = nn.functional.linear(x, downs); // (N, loras · r)
        var inner = Array.ConvertAll(
            Linears,
            linear => (linear as LoraLinear)?.Inner.forward(x, context, mode) ?? linear.forward(x, context, mode)
        );
        var parts = new ForwardResult[Linears.Length];
        for (var i = 0; i < parts.Length; i++)
        {
            LowRank? rest = null;
            if (Linears[i] is LoraLinear lora)
            {
                var (low, up) = (Slice(lows, lora), lora.lora_B.Cast(type));
                if (mode.HasFlag(LinearMode.DeferLowRank))
                    rest = new LowRank(low, up, scale);
                else
                    inner[i].Output.addmm_(low, up.t(), 1, (float)scale);
            }
            parts[i] = new(inner[i].Computed, null, PendingLowRank: rest);
        }
        scope.MoveAllOut();
        return new(
            parts,
            !context.NeedsGradient
                ? null
                : (gradients, accumulateInto) =>
                {
                    using var scope = NewDisposeScope();
                    var dx = accumulateInto;
                    var dlows = empty_like(lows);
                    for (var i = 0; i < parts.Length; i++)
                    {
                        dx = inner[i].Backward!(gradients[i], dx);
                        if (Linears[i] is not LoraLinear lora)
                            continue;
                        lora.lora_B.Accumulate(gradients[i], Slice(lows, lora), scale);
                        Aten.MatmulInto(gradients[i], lora.lora_B.Cast(type), Slice(dlows, lora));
                    }
                    dx!.addmm_(dlows, downs, 1, (float)scale);
                    if (Stacked(lora => lora.lora_A.Grad) is { } grads)
                        grads.add_(Aten.MatmulFp32(dlows.t(), x), scale);
                    return accumulateInto ?? dx.MoveToOuterDisposeScope();
                }
        );
    }

    /// <summary>One matrix of all, (loras · r, In), if they lie one after another.</summary>
    private Tensor? Stacked(Func<LoraLinear, Tensor?> part)
    {
        if (part(loras[0]) is not { } first)
            return null;
        for (var i = 1; i < loras.Length; i++)
        {
            // Of one array, not only at the next address: other tensors may lie there too.
            if (
                part(loras[i]) is not { } next
                || next.storage_offset() != first.storage_offset() + i * first.numel()
                || Start(next) != Start(first)
            )
                return null;
        }
        static nint Start(Tensor slice) =>
            Aten.DataPointer(slice) - (nint)(slice.storage_offset() * slice.element_size());
        return first.as_strided(
            [loras.Length * loras[0].Rank, loras[0].InFeatures],
            [loras[0].InFeatures, 1],
            first.storage_offset()
        );
    }
}
