namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>The keys of zero_optimization. DeepSpeed refuses those that it does not know.</summary>
internal static class ZeroRules
{
    public const string Section = "zero_optimization";

    private const string Strategy = "distributed.strategy",
        Offload = "memory.offloadOptimizer";

    private const string ByItself = "memopt decides this by itself; the result is the same",
        Stage3 = "memopt gathers layer by layer; the result is the same",
        NoFile = "memopt offloads to host memory; set device to cpu";

    private static readonly IReadOnlyList<string> strategies = ["ddp", "zero1", "zero2", "zero3"];

    private static readonly string[] decidedByMemopt =
    [
        "contiguous_gradients",
        "reduce_scatter",
        "reduce_bucket_size",
        "use_multi_rank_bucket_allreduce",
        "allgather_partitions",
        "allgather_bucket_size",
        "overlap_comm",
        "load_from_fp32_weights",
        "round_robin_gradients",
        "ignore_unused_parameters",
        "legacy_stage1",
        "cpu_offload_use_pin_memory",
        "log_trace_cache_warnings",
        "enable_sanity_checks",
    ];

    private static readonly string[] forStage3 =
    [
        "sub_group_size",
        "prefetch_bucket_size",
        "param_persistence_threshold",
        "model_persistence_threshold",
        "max_live_parameters",
        "max_reuse_distance",
        "gather_16bit_weights_on_model_save",
        "module_granularity_threshold",
        "use_all_reduce_for_fetch_params",
        "stage3_prefetch_bucket_size",
        "stage3_param_persistence_threshold",
        "stage3_model_persistence_threshold",
        "stage3_max_live_parameters",
        "stage3_max_reuse_distance",
        "stage3_gather_16bit_weights_on_model_save",
        "stage3_gather_fp16_weights_on_model_save",
        "stage3_module_granularity_threshold",
        "stage3_use_all_reduce_for_fetch_params",
        "stage3_allgather_sequential",
        "mics_hierarchical_params_gather",
        "memory_efficient_linear",
        "pipeline_loading_checkpoint",
        "override_module_apply",
    ];

    public static IReadOnlyDictionary<string, KeyRule> Rules { get; } =
        new Dictionary<string, KeyRule>
        {
            [Section] = KeyRules.Flag(on => Verdict.Set(Strategy, Quoted(strategies[on ? 1 : 0]), Old("stage"))),
            [$"{Section}.stage"] = (node, _) => Stage(node),
            [$"{Section}.offload_optimizer.device"] = (node, _) => Device(node),
            [$"{Section}.offload_optimizer.pin_memory"] = KeyRules.Always(true, "memopt pins the host memory it uses"),
            [$"{Section}.offload_optimizer.nvme_path"] = KeyRules.NoEffect(NoFile),
            [$"{Section}.offload_optimizer.buffer_count"] = KeyRules.NoEffect(NoFile),
            [$"{Section}.offload_optimizer.buffer_size"] = KeyRules.NoEffect(NoFile),
            [$"{Section}.offload_optimizer.fast_init"] = KeyRules.NoEffect(NoFile),
            [$"{Section}.offload_optimizer.pipeline"] = KeyRules.NoEffect(NoFile),
            [$"{Section}.offload_optimizer.pipeline_read"] = KeyRules.NoEffect(NoFile),
            [$"{Section}.offload_optimizer.pipeline_write"] = KeyRules.NoEffect(NoFile),
            [$"{Section}.offload_optimizer.ratio"] = KeyRules.Number(ratio =>
                ratio == 1
                    ? Verdict.Honoured("the whole optimizer is offloaded")
                    : Verdict.Refused("is not there: memopt offloads the whole optimizer; set it to 1")
            ),
            [$"{Section}.offload_optimizer.super_offload"] = KeyRules.Off("is not there; remove it"),
            [$"{Section}.cpu_offload"] = KeyRules.Flag(on =>
                Verdict.Set(Offload, on ? "true" : "false", Old("offload_optimizer"))
            ),
            [$"{Section}.offload_param"] = (node, _) => OffloadParam(node),
            [$"{Section}.cpu_offload_param"] = KeyRules.Off(ParamsOnHost),
            [$"{Section}.elastic_checkpoint"] = KeyRules.NoEffect(
                "every checkpoint of memopt resumes on any number of ranks"
            ),
            [$"{Section}.zero_hpz_partition_size"] = KeyRules.AtMost(
                1,
                "is not there yet: all ranks divide the weights; set it to 1"
            ),
            [$"{Section}.mics_shard_size"] = KeyRules.AtMost(
                0,
                "is not there yet: all ranks divide the weights; set it to -1"
            ),
            [$"{Section}.zero_quantized_weights"] = KeyRules.Off(Rounds),
            [$"{Section}.zero_quantized_gradients"] = KeyRules.Off(Rounds),
            [$"{Section}.zero_quantized_nontrainable_weights"] = KeyRules.Off(
                "is not there; adapter.kind = qlora holds the frozen weights in 4 bits: set it to false"
            ),
            [$"{Section}.zeropp_loco_param"] = KeyRules.Off(Rounds),
            [$"{Section}.zenflow"] = KeyRules.Off("is not there: its updates are delayed; remove it"),
            [$"{Section}.save_muon_momentum_buffer_in_memory"] = KeyRules.NoEffect("memopt's optimizer is AdamW"),
        }
            .Concat(decidedByMemopt.Select(key => KeyValuePair.Create($"{Section}.{key}", KeyRules.NoEffect(ByItself))))
            .Concat(forStage3.Select(key => KeyValuePair.Create($"{Section}.{key}", KeyRules.NoEffect(Stage3))))
            .ToDictionary();

    private const string ParamsOnHost =
        "is not there: memory.streamLayers holds the shards of zero3 on the host; remove it";

    private const string Rounds = "is not there: memopt does not round what the ranks send; set it to false";

    /// <summary>What an absent stage means in a section that is written: 0.</summary>
    public static Verdict NoStage { get; } = Verdict.Set(Strategy, Quoted(strategies[0]), "not written: stage 0");

    private static Verdict Stage(DeepSpeedNode node) =>
        node.Whole switch
        {
            >= 0 and var stage when stage < strategies.Count => Verdict.Set(Strategy, Quoted(strategies[stage])),
            _ => Verdict.Wrong(node, "0, 1, 2 or 3"),
        };

    private static Verdict Device(DeepSpeedNode node) =>
        node.Text switch
        {
            "cpu" => Verdict.Set(Offload, "true", "needs a GPU"),
            "none" => Verdict.Set(Offload, "false"),
            "nvme" => Verdict.Refused("is \"nvme\", which is not there yet; set it to \"cpu\""),
            "hpu" => Verdict.Refused("is \"hpu\", which memopt does not know; set it to \"cpu\" or \"none\""),
            _ => Verdict.Wrong(node, "\"cpu\" or \"none\""),
        };

    private static Verdict OffloadParam(DeepSpeedNode node) =>
        !node.IsObject ? Verdict.Wrong(node, "an object")
        : node.Find("device") is null or { Text: "none" } ? Verdict.Honoured("off, as in memopt")
        : Verdict.Refused(ParamsOnHost);

    private static string Old(string now) => $"the old form of {now}";

    private static string Quoted(string value) => $"\"{value}\"";
}
