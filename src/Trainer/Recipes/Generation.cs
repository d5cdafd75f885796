using Memopt.Trainer.Autograd;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>How tokens are chosen.</summary>
/// <param name="MaxTokens">At most this many.</param>
/// <param name="Temperature">0 is greedy.</param>
/// <param name="TopP">Sample from the likeliest tokens whose probabilities reach this sum.</param>
/// <param name="Seed">Of the sampling.</param>
internal sealed record Sampling(int MaxTokens = 256, double Temperature = 0, double TopP = 1, int Seed = 42);

/// <summary>Continues a prompt token by token with a key-value cache.</summary>
internal static class Generation
{
    public static IEnumerable<int> Run(
        Decoder model,
        IReadOnlyList<int> prompt,
        IReadOnlySet<int> stops,
        Sampling sampling
    )
    {
        using var cache = new KvCache(model.Spec.Layers);
        using var generator = new Generator((ulong)sampling.Seed);
        var input = prompt.Select(id => (long)id).ToArray();
        using var noGc = new NoGcScope();
        for (var count = 0; count < sampling.MaxTokens; count++)
        {
            noGc.Yield();
            var next = Next(model, input, cache, generator, sampling);
            if (stops.Contains(next))
                yield break;
            yield return next;
            input = [next];
        }
    }

    private static int Next(Decoder model, long[] input, KvCache cache, Generator generator, Sampling sampling)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var logits = model
            .Logits(tensor(input, device: model.Device).unsqueeze(0), cache)
            .select(1, -1)
            .squeeze(0)
            .to(float32)
            .cpu(); // (V)
        if (sampling.Temperature < 1e-6) // the same to every digit, where a division would overflow
            return (int)logits.argmax().item<long>();
        var (sorted, order) = (logits / sampling.Temperature).softmax(-1).sort(-1, descending: true);
        var before = sorted.cumsum(0) - sorted;
        var kept = where(before.lt(sampling.TopP), sorted, zeros_like(sorted));
        var draw = rand([1], float32, generator: generator).mul_(kept.sum());
        var index = (int)kept.cumsum(0).lt(draw).sum().item<long>();
        return (int)order[Math.Min(index, (int)order.shape[0] - 1)].item<long>();
    }
}
