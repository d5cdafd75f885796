namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>What becomes of a key of a DeepSpeed file.</summary>
internal enum KeyOutcome
{
    /// <summary>It is done as written: by settings of memopt, by memopt always, or, for "auto", as memopt
    /// decides.</summary>
    Honoured,

    /// <summary>It changes nothing, and the result is that of DeepSpeed all the same.</summary>
    NoEffect,

    /// <summary>memopt cannot do it, or it is wrong.</summary>
    Refused,
}

/// <summary>A setting of memopt that a key decides.</summary>
/// <param name="Setting">Its name: <c>train.clip</c>.</param>
/// <param name="Value">Its value as JSON.</param>
internal sealed record Assignment(string Setting, string Value)
{
    public override string ToString() => $"{Setting}={Value}";
}

/// <summary>What a rule says of a key.</summary>
/// <param name="Outcome">What becomes of it.</param>
/// <param name="Why">The reason; of a refusal also what to do next.</param>
/// <param name="Settings">What it decides.</param>
/// <param name="Code">A code of docs/diagnostics.md, of a refusal.</param>
internal sealed record Verdict(
    KeyOutcome Outcome,
    string Why,
    IReadOnlyList<Assignment> Settings,
    string Code = Verdict.RefusedCode
)
{
    /// <summary>The code of keys that memopt has nothing for.</summary>
    public const string RefusedCode = "MEMOPT0018";

    private const string WrongTypeCode = "MEMOPT0003";

    public static Verdict Set(string setting, string value, string why = "") =>
        new(KeyOutcome.Honoured, why, [new(setting, value)]);

    public static Verdict Honoured(string why, params IReadOnlyList<Assignment> settings) =>
        new(KeyOutcome.Honoured, why, settings);

    public static Verdict NoEffect(string why) => new(KeyOutcome.NoEffect, why, []);

    public static Verdict Refused(string why) => new(KeyOutcome.Refused, why, []);

    /// <summary>The value is of a type that the key cannot have.</summary>
    public static Verdict Wrong(DeepSpeedNode node, string wanted) =>
        new(KeyOutcome.Refused, $"must be {wanted}, found {node.Short}", [], WrongTypeCode);
}

/// <summary>A key of a DeepSpeed file, or one whose default counts, with what becomes of it.</summary>
/// <param name="Key">Its path: <c>zero_optimization.offload_optimizer.device</c>.</param>
/// <param name="Value">Its value as JSON on one line; null where it is not written.</param>
/// <param name="Verdict">What becomes of it.</param>
/// <param name="Line">Line from 1; 0 where it is not written.</param>
/// <param name="Column">Column from 1; 0 where it is not written.</param>
internal sealed record DeepSpeedKey(string Key, string? Value, Verdict Verdict, int Line, int Column);
