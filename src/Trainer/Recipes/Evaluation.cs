using System.Runtime.ExceptionServices;
using Memopt.Text;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
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
    /// <param name="model">The model.</param>
    /// <param name="rows">All rows; each rank evaluates a part of them, and all get the score of the whole.</param>
    /// <param name="microBatch">Sequences computed at once.</param>
    /// <param name="world">The ranks that evaluate together; null is this process alone.</param>
    /// <param name="progress">Receives the rows that this rank has evaluated, as rows of all.</param>
    /// <param name="stop">Ends the evaluation on all ranks.</param>
    public static Score Run(
        Decoder model,
        IReadOnlyList<Row> rows,
        int microBatch,
        World? world = null,
        IProgress<int>? progress = null,
        CancellationToken stop = default
    )
    {
        world ??= World.Single;
        var batches = (rows.Count + microBatch - 1) / microBatch;
        var (mesh, ranks) = (world.Mesh, world.Mesh.Batches);
        var most = (batches + ranks - 1) / ranks;
        var own = world.RunOnAll(() => RunOwn(model, rows, microBatch, world, most, progress, stop));
        var stopped = stop.IsCancellationRequested ? 1 : 0;
        if (world.Group.Agree([stopped], ReduceOp.Max)[0] > 0)
            throw new OperationCanceledException(stop);
        var scores = Combine(own, mesh.Context);
        // Every rank gives as many scores: one that has a micro-batch less gives an empty one.
        while (scores.Count < most)
            scores.Add(default);
        var all = mesh.Data.AllGather([.. scores.SelectMany(score => score.Numbers())]);
        all = mesh.Pipeline.Group.AllGather(all)[^all.Length..]; // the last stage has scored
        // Added in the order of the rows: the number of ranks does not change the sum.
        var total = Enumerable
            .Range(0, batches)
            .Select(batch => BatchScore.Read(all, batch % ranks * mesh.Context.Size * most + batch / ranks))
            .Aggregate((sum, next) => sum + next);
        var mean = total.Loss / Math.Max(1, total.Tokens);
        var accuracy = total.Answers == 0 ? 0 : (double)total.Right / total.Answers;
        return new(mean, Math.Exp(mean), total.Tokens, accuracy, (int)total.Answers);
    }

    /// <summary>The passes of <see cref="Run"/> over all rows on every rank, without a score.</summary>
    public static void Rehearse(Decoder model, IReadOnlyList<Row> rows, int microBatch, World world)
    {
        var (batches, ranks) = ((rows.Count + microBatch - 1) / microBatch, world.Mesh.Batches);
        RunOwn(model, rows, microBatch, world, (batches + ranks - 1) / ranks, null, default);
    }

    /// <summary>What this rank's micro-batches gave, up to a stop. The rank takes part in the collectives of as many
    /// passes as the rank with the most micro-batches.</summary>
    private static List<BatchPart> RunOwn(
        Decoder model,
        IReadOnlyList<Row> rows,
        int microBatch,
        World world,
        int most,
        IProgress<int>? progress,
        CancellationToken stop
    )
    {
        var (scores, done) = (new List<BatchPart>(), 0);
        ExceptionDispatchInfo? exhausted = null;
        using var noGc = new NoGcScope();
        var stages = new PipelineSchedule(world.Mesh.Pipeline, model);
        using var own = Batches.InOrder(rows, microBatch, world.Mesh.Batch, world.Mesh.Batches).GetEnumerator();
        for (var pass = 0; pass < most; pass++)
        {
            noGc.Yield();
            var batch = own.MoveNext() ? own.Current : null;
            if (exhausted is not null || stop.IsCancellationRequested || batch is null)
            {
                model.Collectives.Skip(batch is null ? null : model.Own(batch), backward: false);
                if (batch is not null)
                    stages.Forward(batch, null);
                continue;
            }
            try
            {
                stages.Forward(batch, received => Score(model, batch, received, scores));
            }
            catch (Exception e) when (OutOfMemory.Is(e))
            {
                exhausted = ExceptionDispatchInfo.Capture(e);
                model.Collectives.Finish();
                continue;
            }
            done += batch.Count * world.Mesh.Batches;
            progress?.Report(Math.Min(done, rows.Count));
        }
        exhausted?.Throw();
        return scores;
    }

    /// <summary>Adds the score of a micro-batch on the last stage of a pipeline; an earlier one gives its hidden states
    /// and adds an empty score.</summary>
    private static Tensor? Score(Decoder model, MicroBatch whole, Tensor? received, List<BatchPart> scores)
    {
        using var scope = NewDisposeScope();
        var batch = model.Own(whole);
        model.Collectives.Begin(batch, backward: false);
        using var context = model.NewContext(batch.Length, slice: batch.Slice);
        var ids = received ?? tensor(batch.Ids, device: model.Device).reshape(batch.Count, batch.Length);
        var hidden = model.Forward(ids, context).Output;
        if (!model.Spec.HasHead)
        {
            scores.Add(new(0, 0, []));
            return hidden.MoveToOuterDisposeScope();
        }
        var (sum, correct, _) = ChunkedCrossEntropy.Loss(
            model.lm_head,
            hidden,
            tensor(batch.LossPositions, device: model.Device),
            tensor(batch.Targets, device: model.Device),
            1,
            context,
            tensor: model.Tensor
        );
        var loss = sum.cpu().item<double>();
        var flags = correct.cpu().data<bool>().ToArray();
        var wrong = batch.AnswerIds.Where((_, i) => !flags[i]).ToHashSet();
        scores.Add(new(loss, whole.Targets.Length, [.. whole.AnswerIds.Distinct().Select(wrong.Contains)]));
        return null;
    }

    /// <summary>The scores of micro-batches whose tokens ranks share: their losses are added up, and an answer is right
    /// where no rank has a token of it wrong.</summary>
    /// <param name="parts">What this rank found.</param>
    /// <param name="ranks">The ranks that share the rows.</param>
    private static List<BatchScore> Combine(IReadOnlyList<BatchPart> parts, IProcessGroup ranks)
    {
        if (parts.Count == 0)
            return [];
        var losses = ranks
            .AllGather([.. parts.Select(part => BitConverter.DoubleToInt64Bits(part.Loss))])
            .Select(BitConverter.Int64BitsToDouble)
            .ToList();
        var wrong = ranks.Agree(
            [.. parts.SelectMany(part => part.Wrong).Select(answer => answer ? 1L : 0)],
            ReduceOp.Max
        );
        var (scores, first) = (new List<BatchScore>(), 0);
        for (var i = 0; i < parts.Count; i++)
        {
            var answers = parts[i].Wrong.Length;
            var loss = losses.Where((_, at) => at % parts.Count == i).Sum();
            scores.Add(new(loss, parts[i].Tokens, answers, wrong.Skip(first).Take(answers).Count(no => no == 0)));
            first += answers;
        }
        return scores;
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

    /// <summary>What a rank finds in one micro-batch.</summary>
    /// <param name="Loss">Sum over the trained tokens that this rank has, nats.</param>
    /// <param name="Tokens">Trained tokens of the whole micro-batch.</param>
    /// <param name="Wrong">Of each answer of the whole micro-batch whether the model gives a token that this rank has
    /// otherwise.</param>
    private sealed record BatchPart(double Loss, long Tokens, bool[] Wrong);

    /// <summary>The score of one micro-batch.</summary>
    /// <param name="Loss">Sum over the trained tokens, nats.</param>
    /// <param name="Tokens">Trained tokens.</param>
    /// <param name="Answers">Answers.</param>
    /// <param name="Right">Answers that greedy decoding gives exactly.</param>
    private readonly record struct BatchScore(double Loss, long Tokens, long Answers, long Right)
    {
        private const int Count = 4;

        public static BatchScore operator +(BatchScore a, BatchScore b) =>
            new(a.Loss + b.Loss, a.Tokens + b.Tokens, a.Answers + b.Answers, a.Right + b.Right);

        /// <summary>The score as numbers that ranks exchange.</summary>
        public IEnumerable<long> Numbers() => [BitConverter.DoubleToInt64Bits(Loss), Tokens, Answers, Right];

        /// <summary>The score at an index among the numbers of several.</summary>
        public static BatchScore Read(long[] all, int index) =>
            all.AsSpan(index * Count, Count) is [var loss, var tokens, var answers, var right]
                ? new(BitConverter.Int64BitsToDouble(loss), tokens, answers, right)
                : default;
    }
}
