namespace Memopt.Trainer.Config;

/// <summary>What a name that is not known was probably meant to be.</summary>
internal static class Near
{
    /// <summary>Names of settings in transformers, PEFT, TRL, Axolotl and LLaMA-Factory, lower-case letters and digits
    /// only, and the setting here. One with "=" is a whole assignment.
    /// </summary>
    private static readonly Dictionary<string, string> elsewhere = new()
    {
        ["lr"] = "train.learningRate",
        ["numtrainepochs"] = "train.epochs",
        ["numepochs"] = "train.epochs",
        ["maxsteps"] = "train.steps",
        ["perdevicetrainbatchsize"] = "train.microBatch",
        ["microbatchsize"] = "train.microBatch",
        ["batch"] = "train.batchSize",
        ["warmupratio"] = "train.warmup",
        ["warmupsteps"] = "train.warmup",
        ["lrschedulertype"] = "train.schedule",
        ["lrscheduler"] = "train.schedule",
        ["maxgradnorm"] = "train.clip",
        ["optim"] = "train.optimizer",
        ["adamepsilon"] = "train.epsilon",
        ["seed"] = "train.seed",
        ["r"] = "adapter.rank",
        ["lorar"] = "adapter.rank",
        ["lorarank"] = "adapter.rank",
        ["loraalpha"] = "adapter.alpha",
        ["loradropout"] = "adapter.dropout",
        ["loratarget"] = "adapter.targets",
        ["loratargetmodules"] = "adapter.targets",
        ["targetmodules"] = "adapter.targets",
        ["peft"] = "adapter.kind",
        ["finetuningtype"] = "adapter.kind",
        ["loadin4bit"] = "adapter.kind=qlora",
        ["qlora"] = "adapter.kind=qlora",
        ["bf16"] = "model.dtype=bfloat16",
        ["fp16"] = "model.dtype=float16",
        ["torchdtype"] = "model.dtype",
        ["modelname"] = "model.source",
        ["modelnameorpath"] = "model.source",
        ["model"] = "model.source",
        ["basemodel"] = "model.source",
        ["data"] = "data.train",
        ["dataset"] = "data.train",
        ["datasetname"] = "data.train",
        ["trainfile"] = "data.train",
        ["traindata"] = "data.train",
        ["validationfile"] = "data.eval",
        ["evaldataset"] = "data.eval",
        ["maxseqlength"] = "data.maxLength",
        ["maxseqlen"] = "data.maxLength",
        ["cutofflen"] = "data.maxLength",
        ["blocksize"] = "data.maxLength",
        ["sequencelen"] = "data.maxLength",
        ["packing"] = "data.packing=true",
        ["samplepacking"] = "data.packing=true",
        ["gradientcheckpointing"] = "memory.recompute=true",
        ["savesteps"] = "checkpoint.every",
        ["savetotallimit"] = "checkpoint.keep",
        ["loggingdir"] = "tracking.tensorboard",
        ["runname"] = "tracking.experiment",
        ["project"] = "tracking.experiment",
    };

    /// <summary>The setting that another tool calls so, or one whose last part is written nearly so:
    /// <c>section.setting</c> or <c>section.setting=value</c>; null when there is none.</summary>
    /// <param name="name">As it was written, without dashes before it.</param>
    public static string? Setting(string name)
    {
        if (elsewhere.GetValueOrDefault(Letters(name)) is { } known)
            return known;
        var names = RunConfigFile.Names().ToLookup(setting => Letters(setting.Split('.')[1]));
        return Of(Letters(name.Split('.')[^1]), names.Select(group => group.Key)) is { } near
            ? names[near].First()
            : null;
    }

    /// <summary>The known name nearest to another, in letters changed, left out, added or exchanged; null when none is
    /// near, where a beginning of just one is near.</summary>
    public static string? Of(string name, IEnumerable<string> known)
    {
        var all = known.ToList();
        var (best, distance) = all.Select(candidate =>
                (candidate, Distance(name.ToLowerInvariant(), candidate.ToLowerInvariant()))
            )
            .OrderBy(pair => pair.Item2)
            .FirstOrDefault();
        if (
            best is not null
            && distance <= Math.Max(2, name.Length / 3)
            && distance < Math.Max(name.Length, best.Length)
        )
            return best;
        return
            name.Length > 2
            && all.Where(candidate => candidate.StartsWith(name, StringComparison.OrdinalIgnoreCase)).ToList()
                is [var only]
            ? only
            : null;
    }

    private static string Letters(string name) =>
        string.Concat(name.Where(char.IsAsciiLetterOrDigit)).ToLowerInvariant();

    /// <summary>Optimal string alignment: Levenshtein's distance in which two neighbours exchanged cost one.</summary>
    private static int Distance(string a, string b)
    {
        // A stranger's file may have a name of any length.
        if (Math.Abs(a.Length - b.Length) > 64 || a.Length > 256)
            return int.MaxValue;
        var rows = new int[a.Length + 1, b.Length + 1];
        for (var i = 0; i <= a.Length; i++)
        {
            for (var j = 0; j <= b.Length; j++)
            {
                rows[i, j] =
                    i == 0 || j == 0
                        ? i + j
                        : Math.Min(
                            Math.Min(rows[i - 1, j], rows[i, j - 1]) + 1,
                            rows[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)
                        );
                if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                    rows[i, j] = Math.Min(rows[i, j], rows[i - 2, j - 2] + 1);
            }
        }
        return rows[a.Length, b.Length];
    }
}
