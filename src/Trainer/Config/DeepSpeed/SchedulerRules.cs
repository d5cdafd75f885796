namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>scheduler: WarmupLR, WarmupDecayLR and WarmupCosineLR. Parameters that are not written have DeepSpeed's
/// defaults.</summary>
internal static class SchedulerRules
{
    /// <summary>The peak of the learning rate.</summary>
    public const string MaxRate = $"{Params}.warmup_max_lr";

    /// <summary>The peak where none is written.</summary>
    public const double DefaultMaxRate = 0.001;

    private const string Params = "scheduler.params";
    private const string Cosine = "WarmupCosineLR";
    private const string Default = "not written: DeepSpeed's default";

    // The largest end of a cosine that rounds to memopt's, which is 0: DeepSpeed's default.
    private const double SmallestRatio = 1e-4;

    private static readonly Dictionary<string, string> schedules = new()
    {
        ["WarmupLR"] = "constant",
        ["WarmupDecayLR"] = "linear",
        [Cosine] = "cosine",
    };

    public static IReadOnlyDictionary<string, KeyRule> Rules { get; } =
        new Dictionary<string, KeyRule>
        {
            ["scheduler.type"] = (node, _) =>
                Verdict.Set("train.schedule", $"\"{schedules[node.Text!]}\"", "with linear warm-up"),
            [$"{Params}.warmup_min_lr"] = KeyRules.Number(FromZero),
            [$"{Params}.warmup_min_ratio"] = KeyRules.Number(FromZero),
            [MaxRate] = (node, file) =>
                IsCosine(file)
                    ? Verdict.Refused($"is no parameter of {Cosine}, whose peak is {OptimizerRate}; remove it")
                    : KeyRules.Copied("train.learningRate")(node, file),
            [$"{Params}.warmup_num_steps"] = (node, _) =>
                node.Whole is >= 0
                    ? Verdict.Set("train.warmup", node.Digits)
                    : Verdict.Wrong(node, "a number of steps"),
            [$"{Params}.total_num_steps"] = (node, file) =>
                node.Whole is not > 0 ? Verdict.Wrong(node, "a number of steps")
                : Name(file) == "WarmupLR" ? Verdict.NoEffect("WarmupLR does not decay")
                : Verdict.Set("train.steps", node.Digits, "the learning rate is 0 after them"),
            [$"{Params}.warmup_type"] = (node, _) =>
                node.Text switch
                {
                    "linear" => Verdict.Honoured("as in memopt"),
                    "log" => Verdict.Refused("is \"log\", and memopt's warm-up is linear; set it to \"linear\""),
                    _ => Verdict.Wrong(node, "\"linear\""),
                },
            [$"{Params}.cos_min_ratio"] = KeyRules.Number(ratio =>
                ratio is 0 ? Verdict.Honoured("as in memopt")
                : ratio is > 0 and <= SmallestRatio
                    ? Verdict.NoEffect("memopt's cosine ends at 0; the difference is at most 0.0001 of the peak")
                : Verdict.Refused("is above 0.0001, and memopt's cosine ends at 0; set it to 0")
            ),
            [$"{Params}.last_batch_iteration"] = KeyRules.Number(last =>
                last == -1
                    ? Verdict.Honoured("from the first step")
                    : Verdict.Refused("is not -1; remove it: memopt resumes from its own checkpoints")
            ),
        };

    private const string OptimizerRate = "optimizer.params.lr";

    /// <summary>Why a scheduler is refused with all of its parameters; null when memopt has it.</summary>
    public static Verdict? Refusal(DeepSpeedNode section, DeepSpeedDocument file) =>
        section.Find("type") switch
        {
            null => Verdict.Refused("has no type; write \"type\": \"WarmupLR\", or remove the section"),
            { Text: { } name } when schedules.ContainsKey(name) => null,
            { } type => Verdict.Refused(
                $"is of type {type.Short}; memopt has {string.Join(", ", schedules.Keys)}: use one of them, or remove "
                    + "the section and set train.schedule"
            ),
        };

    /// <summary>Whether the scheduler, and not the optimizer, decides the learning rate.</summary>
    public static bool SetsRate(DeepSpeedDocument file) =>
        Name(file) is { } name
        && schedules.ContainsKey(name)
        && name != Cosine
        && (file.Find(MaxRate) is null or { IsAuto: false });

    /// <summary>Parameters that are not written, with what their defaults decide.</summary>
    public static IEnumerable<(string Key, Verdict Verdict)> Defaults(DeepSpeedDocument file)
    {
        if (Name(file) is not { } name || !schedules.ContainsKey(name))
            yield break;
        if (file.Find($"{Params}.warmup_num_steps") is null)
            yield return ($"{Params}.warmup_num_steps", Verdict.Set("train.warmup", "1000", Default));
        if (SetsRate(file) && file.Find(MaxRate) is null)
            yield return (MaxRate, Verdict.Set("train.learningRate", "0.001", Default));
        if (file.Find($"{Params}.warmup_type") is null)
            yield return (
                $"{Params}.warmup_type",
                Verdict.NoEffect("not written: DeepSpeed's default is log, memopt's warm-up is linear")
            );
    }

    private static Verdict FromZero(double number) =>
        number == 0
            ? Verdict.Honoured("as in memopt")
            : Verdict.Refused("is not 0, and memopt's warm-up begins at 0; set it to 0");

    private static bool IsCosine(DeepSpeedDocument file) => Name(file) == Cosine;

    private static string? Name(DeepSpeedDocument file) => file.Find("scheduler.type")?.Text;
}
