using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>What came of linears that share an input.</summary>
/// <param name="Parts">Of each; their ways back are not to be called.</param>
/// <param name="Back">Gradients of the values → that of the input, added to the second where given.</param>
public sealed record Shared(Out[] Parts, Func<Tensor[], Tensor?, Tensor>? Back);

/// <summary>Linears that share an input, run one after another. What can be done at once for all is a subclass's.</summary>
public class Together(Linear[] linears)
{
    protected Linear[] Linears { get; } = linears;

    /// <summary>The way that the first of them with a way of its own has.</summary>
    public static Together Of(Linear[] linears)
    {
        foreach (var linear in linears)
        {
            var together = linear.With(linears);
            if (together.GetType() != typeof(Together))
                return together;
        }
        return new(linears);
    }

    public virtual Shared forward(Tensor x, Pass pass, Wanted wanted)
    {
        var parts = Array.ConvertAll(Linears, linear => linear.forward(x, pass, wanted));
        return new(parts, !pass.Learns ? null : (gradients, onto) =>
        {
            using var scope = NewDisposeScope();
            var dx = onto;
            for (var i = 0; i < parts.Length; i++)
                dx = parts[i].Back!(gradients[i], dx);
            return onto ?? dx!.MoveToOuterDisposeScope();
        });
    }
}
