using Memopt.Trainer.Autograd;
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

    public override GroupPass Begin(Tensor x, ForwardContext context)
    {
        var type = x.dtype;
        if (
            context.AdaptersDisabled
            || Stacked(lora => lora.lora_A.HasCast(type) ? lora.lora_A.Cast(type) : null) is not { } downs
        )
            return base.Begin(x, context);
        var lows = nn.functional.linear(x, downs); // (N, loras · r)
        return new Pass(this, x, downs, lows, Array.ConvertAll(Linears, Begin));

        LinearPass Begin(Linear linear) =>
            linear is LoraLinear lora
                ? new LoraPass(lora, lora.Inner.Begin(x, context), x, Slice(lows, lora), mask: null)
                : linear.Begin(x, context);
    }

    /// <summary>The columns of one linear in a matrix of all, (N, loras · r).</summary>
    private Tensor Slice(Tensor all, LoraLinear lora) =>
        all.narrow(1, Array.IndexOf(loras, lora) * lora.Rank, lora.Rank);

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

    /// <summary>A pass with the A's in one matrix.</summary>
    private sealed class Pass(LoraGroup group, Tensor x, Tensor downs, Tensor lows, LinearPass[] passes)
        : GroupPass(passes)
    {
        public override Tensor Backward(Tensor[] gradients, Tensor? accumulateInto)
        {
            using var scope = NewDisposeScope();
            var (type, scale) = (x.dtype, group.loras[0].Scale);
            var dx = accumulateInto;
            var dlows = empty_like(lows);
            for (var i = 0; i < Passes.Length; i++)
            {
                dx = (Passes[i] as LoraPass)?.Inner.Backward(gradients[i], dx) ?? Passes[i].Backward(gradients[i], dx);
                if (group.Linears[i] is not LoraLinear lora)
                    continue;
                lora.lora_B.Accumulate(gradients[i], group.Slice(lows, lora), scale);
                Aten.MatmulInto(gradients[i], lora.lora_B.Cast(type), group.Slice(dlows, lora));
            }
            dx!.addmm_(dlows, downs, 1, (float)scale);
            if (group.Stacked(lora => lora.lora_A.Grad) is { } grads)
                grads.add_(Aten.MatmulFp32(dlows.t(), x), scale);
            return accumulateInto ?? dx.MoveToOuterDisposeScope();
        }
    }
}
