using Memopt.Trainer.Data;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Models;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>What a run will need at its worst, done once before the first step and leaving no trace.</summary>
internal static class Rehearsal
{
    /// <summary>The longest batch, all of its tokens trained.</summary>
    /// <param name="count">Sequences.</param>
    /// <param name="length">Tokens of each, padded.</param>
    /// <param name="packed">Whether each is a document of its own.</param>
    public static MicroBatch Longest(int count, int length, bool packed)
    {
        var predicting = Enumerable
            .Range(0, count * length)
            .Where(i => (i + 1) % length != 0)
            .Select(i => (long)i)
            .ToArray();
        return new(
            count,
            length,
            new long[count * length],
            predicting,
            new long[predicting.Length],
            new int[predicting.Length],
            packed ? [.. Enumerable.Range(0, count * length).Select(i => (long)(i % length))] : null,
            packed ? new Documents([.. Enumerable.Range(0, count + 1).Select(row => row * length)], length) : null,
            (long)count * length
        );
    }

    /// <summary>An evaluation of so many of the longest rows, by each rank.</summary>
    internal static void Evaluate(Decoder model, int count, int length, World world) =>
        Evaluation.Rehearse(
            model,
            [.. Enumerable.Repeat(new Row(new int[length], new int[length], 0), count * world.Mesh.Batches)],
            count,
            world
        );

    /// <summary>Reads what a checkpoint writes, and writes it nowhere.</summary>
    internal static void Save(IReadOnlyList<(string Name, Tensor Tensor)> state)
    {
        foreach (var (_, tensor) in state)
            SafeTensors.WriteData(Stream.Null, tensor);
    }
}
