namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>bf16, fp16 and the scale of the loss.</summary>
internal static class PrecisionRules
{
    private const string Scaler =
        "memopt's loss scale begins at 65536, is halved at an overflow and doubled after 2,000 steps; it is a power of "
        + "two, which does not round";

    public static IReadOnlyDictionary<string, KeyRule> Rules { get; } =
        new Dictionary<string, KeyRule>
        {
            ["bf16.enabled"] = (node, file) => Enabled(node, file, "bfloat16"),
            ["bfloat16.enabled"] = (node, file) => Enabled(node, file, "bfloat16"),
            ["fp16.enabled"] = (node, file) => Enabled(node, file, "float16"),
            ["bf16.immediate_grad_update"] = KeyRules.NoEffect("memopt sums gradients in fp32"),
            ["bf16.check_grad_overflow"] = KeyRules.NoEffect("memopt looks at the norm of every step"),
            ["bf16.bf16_master_weights_and_grads"] = KeyRules.Off(Masters),
            ["bf16.bf16_optimizer_states"] = KeyRules.Off(Masters),
            ["fp16.fp16_master_weights_and_grads"] = KeyRules.Off(Masters),
            ["fp16.auto_cast"] = KeyRules.NoEffect("the model's inputs are token ids"),
            ["fp16.loss_scale"] = KeyRules.Number(scale =>
                scale == 0
                    ? Verdict.Honoured("dynamic, as in memopt")
                    : Verdict.Refused("is a static scale, which is not there; set it to 0 (dynamic)")
            ),
            ["fp16.initial_scale_power"] = Scale(16),
            ["fp16.loss_scale_window"] = Scale(2000),
            ["fp16.hysteresis"] = Scale(1),
            ["fp16.consecutive_hysteresis"] = KeyRules.NoEffect(Scaler),
            ["fp16.min_loss_scale"] = Scale(1),
        };

    private const string Masters =
        "is not there: memopt holds the trained weights and the optimizer in fp32; set it to false";

    private static Verdict Enabled(DeepSpeedNode node, DeepSpeedDocument file, string type)
    {
        if (node.Flag is not { } on)
            return Verdict.Wrong(node, "true, false or \"auto\"");
        if (!on)
            return Verdict.Honoured("off: model.dtype stays");
        var other = type == "float16" ? new[] { "bf16.enabled", "bfloat16.enabled" } : ["fp16.enabled"];
        return other.FirstOrDefault(key => file.Find(key) is { Flag: true }) is { } both
            ? Verdict.Refused($"and {both} are both true: keep one")
            : Verdict.Set("model.dtype", $"\"{type}\"");
    }

    private static KeyRule Scale(double ours) =>
        KeyRules.Number(number => number == ours ? Verdict.Honoured("as in memopt") : Verdict.NoEffect(Scaler));
}
