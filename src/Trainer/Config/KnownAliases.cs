namespace Memopt.Trainer.Config;

/// <summary>Names of settings in transformers, PEFT, TRL, Axolotl and LLaMA-Factory.</summary>
internal static class KnownAliases
{
    /// <summary>The <see cref="Letters"/> of a name, and the setting here. A setting with "=" is a whole
    /// assignment.</summary>
    private static readonly Dictionary<string, string> settings = new()
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
        ["tensorparallelsize"] = "distributed.tensor",
        ["tensormodelparallelsize"] = "distributed.tensor",
        ["tpsize"] = "distributed.tensor",
        ["contextparallelsize"] = "distributed.context",
        ["cpsize"] = "distributed.context",
        ["savesteps"] = "checkpoint.every",
        ["savetotallimit"] = "checkpoint.keep",
        ["pipelineparallelsize"] = "distributed.pipeline",
        ["pipelinemodelparallelsize"] = "distributed.pipeline",
        ["loggingdir"] = "tracking.tensorboard",
        ["runname"] = "tracking.experiment",
        ["project"] = "tracking.experiment",
    };

    /// <summary>The setting that another tool calls by this name: <c>section.setting</c> or
    /// <c>section.setting=value</c>; null when there is none.</summary>
    public static string? Find(string name) => settings.GetValueOrDefault(Letters(name));

    /// <summary>The ASCII letters and digits of a name in lower case: tools differ in dashes, underscores and
    /// capitals.</summary>
    public static string Letters(string name) =>
        string.Concat(name.Where(char.IsAsciiLetterOrDigit)).ToLowerInvariant();
}
