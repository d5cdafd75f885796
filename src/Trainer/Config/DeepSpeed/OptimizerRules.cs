namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>optimizer: Adam and AdamW, which are both AdamW in DeepSpeed unless adam_w_mode says otherwise.</summary>
internal static class OptimizerRules
{
    private const string Params = "optimizer.params";
    private const string SameArithmetic = "another implementation of the same arithmetic";

    private static readonly string[] known = ["adam", "adamw", "fusedadam"];

    public static IReadOnlyDictionary<string, KeyRule> Rules { get; } =
        new Dictionary<string, KeyRule>
        {
            ["optimizer.type"] = (_, _) =>
                Verdict.Set("train.optimizer", "\"adamw\"", "Adam with decoupled weight decay"),
            ["optimizer.legacy_fusion"] = KeyRules.NoEffect(SameArithmetic),
            [$"{Params}.lr"] = LearningRate,
            [$"{Params}.betas"] = (node, _) => Betas(node),
            [$"{Params}.eps"] = KeyRules.Copied("train.epsilon"),
            [$"{Params}.weight_decay"] = KeyRules.Copied("train.weightDecay"),
            [$"{Params}.adam_w_mode"] = KeyRules.Flag(on =>
                on
                    ? Verdict.Honoured("as in memopt")
                    : Verdict.Refused("is false: Adam with L2 decay is not there; remove it for AdamW")
            ),
            [$"{Params}.bias_correction"] = KeyRules.Flag(on =>
                on ? Verdict.Honoured("as in memopt") : Verdict.Refused("is false, which is not there; remove it")
            ),
            [$"{Params}.amsgrad"] = KeyRules.Off("is not there; remove it"),
            [$"{Params}.torch_adam"] = KeyRules.NoEffect(SameArithmetic),
            [$"{Params}.fused"] = KeyRules.NoEffect(SameArithmetic),
            [$"{Params}.foreach"] = KeyRules.NoEffect(SameArithmetic),
            [$"{Params}.fp32_optimizer_states"] = KeyRules.Always(true, "memopt's moments are fp32"),
            [$"{Params}.set_grad_none"] = KeyRules.NoEffect(SameArithmetic),
        };

    /// <summary>Why an optimizer is refused with all of its parameters; null when memopt has it.</summary>
    public static Verdict? Refusal(DeepSpeedNode section, DeepSpeedDocument file) =>
        section.Find("type") switch
        {
            null => Verdict.Refused("has no type; write \"type\": \"AdamW\", or remove the section"),
            { Text: { } name } when known.Contains(name.ToLowerInvariant()) => null,
            { } type => Verdict.Refused($"is of type {type.Short}; memopt has AdamW: set type to \"AdamW\""),
        };

    /// <summary>The learning rate where the optimizer names none and no scheduler sets it: 0.001.</summary>
    public static Verdict? DefaultRate(DeepSpeedDocument file) =>
        file.Find("optimizer") is not null && file.Find($"{Params}.lr") is null && !SchedulerRules.SetsRate(file)
            ? Verdict.Set("train.learningRate", "0.001", "not written: DeepSpeed's default")
            : null;

    private static Verdict LearningRate(DeepSpeedNode node, DeepSpeedDocument file)
    {
        if (node.Number is not { } rate)
            return Verdict.Wrong(node, "a number");
        if (!SchedulerRules.SetsRate(file))
            return Verdict.Set("train.learningRate", node.Line);
        return rate == (file.Find(SchedulerRules.MaxRate)?.Number ?? SchedulerRules.DefaultMaxRate)
            ? Verdict.Honoured($"as {SchedulerRules.MaxRate}, which sets it")
            : Verdict.NoEffect($"{SchedulerRules.MaxRate} sets the learning rate, as in DeepSpeed");
    }

    private static Verdict Betas(DeepSpeedNode node)
    {
        var betas =
            node.Json.ValueKind == System.Text.Json.JsonValueKind.Array ? node.Json.EnumerateArray().ToList() : [];
        return
            betas.Count == 2
            && betas.All(beta =>
                beta.ValueKind == System.Text.Json.JsonValueKind.Number && beta.GetDouble() is >= 0 and < 1
            )
            ? Verdict.Set("train.betas", node.Line)
            : Verdict.Wrong(node, "two numbers from 0 to below 1");
    }
}
