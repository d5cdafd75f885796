using System.Globalization;

namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>train_batch_size = train_micro_batch_size_per_gpu × gradient_accumulation_steps × ranks: any two give the
/// third.</summary>
internal static class BatchRules
{
    private const string All = "train_batch_size",
        Micro = "train_micro_batch_size_per_gpu",
        Accumulation = "gradient_accumulation_steps";

    private const string BatchSize = "train.batchSize",
        MicroBatch = "train.microBatch";

    public static IReadOnlyDictionary<string, KeyRule> Rules { get; } =
        new Dictionary<string, KeyRule>
        {
            [All] = Counted(OfAll),
            [Micro] = Counted(OfMicro),
            [Accumulation] = Counted((file, sizes) => OfAccumulation(sizes, file.Ranks)),
        };

    /// <summary>The numbers that are written; null for what is not, or is "auto".</summary>
    private sealed record Sizes(int? All, int? Micro, int? Accumulation);

    private static KeyRule Counted(Func<DeepSpeedDocument, Sizes, Verdict> rule) =>
        (node, file) =>
            node.Whole is null or < 1
                ? Verdict.Wrong(node, "a whole number above 0")
                : rule(file, new(Size(file, BatchRules.All), Size(file, BatchRules.Micro), Size(file, Accumulation)));

    private static int? Size(DeepSpeedDocument file, string key) =>
        file.Find(key)?.Whole is > 0 and var size ? size : null;

    private static Verdict OfAll(DeepSpeedDocument file, Sizes sizes)
    {
        var ranks = file.Ranks;
        return sizes switch
        {
            { Micro: { } micro, Accumulation: { } steps } when (long)micro * steps * ranks != sizes.All => Unequal(
                sizes,
                ranks
            ),
            { Micro: { } micro, Accumulation: null } when sizes.All % ((long)micro * ranks) != 0 => Verdict.Refused(
                $"is {sizes.All}, which {micro} x {Ranks(ranks)} do not divide; set the ranks (--gpus N) or one of both"
            ),
            { Micro: null, Accumulation: { } steps } when sizes.All % ((long)steps * ranks) != 0 => Verdict.Refused(
                $"is {sizes.All}, which {steps} x {Ranks(ranks)} do not divide; set the ranks (--gpus N) or one of both"
            ),
            { Micro: null, Accumulation: null } when sizes.All % ranks != 0 => Verdict.Refused(
                $"is {sizes.All}, which {Ranks(ranks)} do not divide; set the ranks (--gpus N)"
            ),
            { All: { } all } when file.Find(Micro) is null && file.Find(Accumulation) is null => Verdict.Honoured(
                $"accumulation 1: {all} / {Ranks(ranks)}",
                new Assignment(BatchSize, Text(all)),
                new Assignment(MicroBatch, Text(all / ranks))
            ),
            _ => Verdict.Set(BatchSize, Text(sizes.All!.Value)),
        };
    }

    private static Verdict Unequal(Sizes sizes, int ranks)
    {
        var one = (long)sizes.Micro!.Value * sizes.Accumulation!.Value;
        var next =
            sizes.All % one == 0 && sizes.All / one <= 64
                ? $"use {sizes.All / one} ranks (--gpus {sizes.All / one}, or distributed.gpus)"
                : "change one of the three";
        return Verdict.Refused(
            $"is {sizes.All}, but {Micro} x {Accumulation} x ranks is {sizes.Micro} x {sizes.Accumulation} x {ranks} = "
                + $"{one * ranks}; {next}"
        );
    }

    private static Verdict OfMicro(DeepSpeedDocument file, Sizes sizes)
    {
        var micro = new Assignment(MicroBatch, Text(sizes.Micro!.Value));
        // "auto" beside it leaves the whole batch to memopt; a key that is not there means one micro-batch a step.
        return file.Find(All) is null && file.Find(Accumulation) is null
            ? Verdict.Honoured(
                $"accumulation 1: {sizes.Micro} x {Ranks(file.Ranks)}",
                micro,
                new Assignment(BatchSize, Text((long)sizes.Micro.Value * file.Ranks))
            )
            : Verdict.Honoured("", micro);
    }

    private static Verdict OfAccumulation(Sizes sizes, int ranks) =>
        sizes switch
        {
            { All: { }, Micro: { } } => Verdict.Honoured("follows from train.batchSize and train.microBatch"),
            { All: { } all, Micro: null } => Verdict.Set(
                MicroBatch,
                Text(Math.Max(1, all / ((long)sizes.Accumulation!.Value * ranks))),
                $"{all} / ({sizes.Accumulation} x {Ranks(ranks)})"
            ),
            { All: null, Micro: { } micro } => Verdict.Set(
                BatchSize,
                Text((long)micro * sizes.Accumulation!.Value * ranks),
                $"{micro} x {sizes.Accumulation} x {Ranks(ranks)}"
            ),
            _ => Verdict.NoEffect(
                "memopt accumulates train.batchSize / (train.microBatch x ranks) micro-batches; write one of the two "
                    + "batch sizes as a number to decide it"
            ),
        };

    private static string Ranks(int ranks) => ranks == 1 ? "1 rank" : $"{ranks} ranks";

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}
