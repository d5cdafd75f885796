namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>The keys outside zero_optimization, batch, precision, optimizer and scheduler.</summary>
internal static class GeneralRules
{
    private const string Activations = "activation_checkpointing";
    private const string NotThere = "is not there; remove it";
    private const string Fp32 = "memopt sums gradients in fp32";
    private const string Layout = "memopt decides by itself which activations it holds and where";

    // What a program prints and records.
    private static readonly string[] records =
    [
        "steps_per_print",
        "wall_clock_breakdown",
        "memory_breakdown",
        "dump_state",
        "tensorboard",
        "wandb",
        "comet",
        "csv_monitor",
        "monitor_config",
        "flops_profiler",
        "comms_logger",
        "comms_config",
        "timers",
    ];

    private static readonly string[] missing =
    [
        "amp",
        "torch_autocast",
        "sparse_attention",
        "compression_training",
        "quantize_training",
        "moe",
        "hybrid_engine",
        "curriculum_learning",
        "data_efficiency",
        "elasticity",
        "autotuning",
        "progressive_layer_drop",
        "eigenvalue",
        "zenflow",
        "super_offload",
        "dataloader_drop_last",
    ];

    private static readonly string[] means =
    [
        "aio",
        "checkpoint",
        "nebula",
        "compile",
        "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer",
        "sparse_gradients",
        "disable_allgather",
        "allgather_size",
        "use_data_before_expert_parallel_",
        "vocabulary_size",
        "graph_harvesting",
    ];

    private static readonly string[] sums =
    [
        "communication_data_type",
        "seq_parallel_communication_data_type",
        "prescale_gradients",
        "gradient_predivide_factor",
        "fp32_allreduce",
        "data_types",
    ];

    private static readonly string[] layouts =
    [
        "contiguous_memory_optimization",
        "number_checkpoints",
        "synchronize_checkpoint_boundary",
        "profile",
    ];

    public static IReadOnlyDictionary<string, KeyRule> Rules { get; } =
        new Dictionary<string, KeyRule>
        {
            ["gradient_clipping"] = KeyRules.Copied("train.clip"),
            ["tensor_parallel"] = (node, _) => OneRank(node, "remove it and set distributed.tensor"),
            ["pipeline"] = (node, _) => OneRank(node, "remove it and set distributed.pipeline"),
            ["sequence_parallel_size"] = KeyRules.AtMost(
                1,
                "is above 1: that divides the heads; remove it and set distributed.context"
            ),
            [$"{Activations}.partition_activations"] = KeyRules.Flag(on =>
                on
                    ? Verdict.Set("memory.recompute", "true", "the inputs of layers are not partitioned")
                    : Verdict.Honoured("off, as in memopt")
            ),
            [$"{Activations}.cpu_checkpointing"] = KeyRules.Flag(on =>
                on
                    ? Verdict.Honoured(
                        "needs a GPU",
                        new Assignment("memory.recompute", "true"),
                        new Assignment("memory.offloadActivations", "true")
                    )
                    : Verdict.Honoured("off, as in memopt")
            ),
        }
            .Concat(Each(records, KeyRules.NoEffect("memopt records and prints its runs itself (tracking.*)")))
            .Concat(Each(missing, KeyRules.Off(NotThere)))
            .Concat(Each(means, KeyRules.NoEffect("memopt decides this by itself; the result is the same")))
            .Concat(Each(sums, KeyRules.NoEffect(Fp32)))
            .Concat(Each(layouts.Select(key => $"{Activations}.{key}"), KeyRules.NoEffect(Layout)))
            .ToDictionary();

    private static IEnumerable<KeyValuePair<string, KeyRule>> Each(IEnumerable<string> keys, KeyRule rule) =>
        keys.Select(key => KeyValuePair.Create(key, rule));

    /// <summary>A way to divide the model, which must be over one rank.</summary>
    /// <param name="node">Its section.</param>
    /// <param name="next">What to do where it is over several.</param>
    private static Verdict OneRank(DeepSpeedNode node, string next) =>
        !node.IsObject ? Verdict.Wrong(node, "an object")
        : Sizes(node).Any(size => size.Number is not <= 1 && !size.IsAuto)
            ? Verdict.Refused($"divides the model: {next}")
        : Verdict.Honoured("over one rank, as in memopt");

    private static IEnumerable<DeepSpeedNode> Sizes(DeepSpeedNode node) =>
        node.Children.SelectMany(child =>
            child.Name is "autotp_size" or "tp_size" or "stages" or "size" ? [child] : Sizes(child)
        );
}
