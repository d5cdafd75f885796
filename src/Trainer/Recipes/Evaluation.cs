using Memopt.Text;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>What an evaluation found.</summary>
/// <param name="Loss">Mean over the trained tokens, nats.</param>
/// <param name="Perplexity">e to the loss.</param>
/// <param name="Tokens">Trained tokens.</param>
/// <param name="Accuracy">Share of answers that greedy decoding gives exactly, end of turn included.</param>
/// <param name="Answers">Answers scored.</param>
internal sealed record Score(double Loss, double Perplexity, long Tokens, double Accuracy, int Answers);

/// <summary>A row's answer as it should be and as the model gives it.</summary>
/// <param name="Prompt">What comes before the answer as the model reads it, template and all.</param>
/// <param name="Expected">The row's answer.</param>
/// <param name="Given">The model's, chosen greedily.</param>
internal sealed record Answer(string Prompt, string Expected, string Given);

/// <summary>Loss, perplexity and exact-match accuracy of a model over rows.</summary>
internal static class Evaluation
{
    /// <summary>Greedy decoding reproduces an answer exactly when, with the answer given, each of its tokens is the
    /// likeliest after those before it; so accuracy comes from the same pass as the loss, with no token generated.
    /// </summary>
    public static Score Run(
        Decoder model,
        IReadOnlyList<Row> rows,
        int microBatch,
        IProgress<int>? progress = null,
        CancellationToken stop = default
    )
    {
        double loss = 0;
        long tokens = 0;
        var (answers, right, done) = (0, 0, 0);
        using var noGc = new NoGcScope();
        foreach (var batch in Batches.InOrder(rows, microBatch))
        {
            noGc.Yield();
            stop.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            using var context = model.NewContext(batch.Length);
            var ids = tensor(batch.Ids, device: model.Device).reshape(batch.Count, batch.Length);
            var hidden = model.Forward(ids, context).Output;
            var (sum, correct, _) = ChunkedCrossEntropy.Loss(
                model.lm_head,
                hidden,
                tensor(batch.LossPositions, device: model.Device),
                tensor(batch.Targets, device: model.Device),
                1,
                context
            );
            loss += sum.cpu().item<double>();
            tokens += batch.Targets.Length;
            var flags = correct.cpu().data<bool>().ToArray();
            foreach (var answer in Enumerable.Range(0, flags.Length).GroupBy(i => batch.AnswerIds[i]))
            {
                answers++;
                right += answer.All(i => flags[i]) ? 1 : 0;
            }
            progress?.Report(done += batch.Count);
        }
        var mean = loss / Math.Max(1, tokens);
        return new(mean, Math.Exp(mean), tokens, answers == 0 ? 0 : (double)right / answers, answers);
    }

    /// <summary>What the model answers where rows have an answer (a stretch of trained tokens), each from the row's own
    /// tokens before it. A token at a time: slow beside <see cref="Run"/>.</summary>
    public static IEnumerable<Answer> Answers(Decoder model, ChatEncoder text, IReadOnlyList<Row> rows)
    {
        foreach (var row in rows)
        {
            for (var (start, end) = (1, 1); start < row.Ids.Length; start = end)
            {
                for (
                    end = start + 1;
                    end < row.Ids.Length && row.Labels[end] == Row.NoLoss == (row.Labels[start] == Row.NoLoss);
                    end++
                ) { }
                if (row.Labels[start] == Row.NoLoss)
                    continue;
                var given = Generation.Run(model, row.Ids[..start], text.EndOfTurn, new()).ToList();
                yield return new(
                    text.Tokenizer.Decode(row.Ids[..start], skipSpecial: false),
                    text.Tokenizer.Decode([.. row.Labels[start..end].TakeWhile(id => !text.EndOfTurn.Contains(id))]),
                    text.Tokenizer.Decode(given)
                );
            }
        }
    }
}
