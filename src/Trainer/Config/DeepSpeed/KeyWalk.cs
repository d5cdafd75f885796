using Memopt.Trainer.Config.Reading;

namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>Goes through a DeepSpeed file and settles every key.</summary>
/// <param name="file">The file's values.</param>
/// <param name="text">The file's text.</param>
internal sealed class KeyWalk(DeepSpeedDocument file, ConfigText text)
{
    /// <summary>Most refusals: near names are looked for at each.</summary>
    private const int Most = 1_000;

    private static readonly Dictionary<string, KeyRule> rules = BatchRules
        .Rules.Concat(ZeroRules.Rules)
        .Concat(PrecisionRules.Rules)
        .Concat(OptimizerRules.Rules)
        .Concat(SchedulerRules.Rules)
        .Concat(GeneralRules.Rules)
        .ToDictionary();

    /// <summary>The sections that are gone through, with what refuses them as a whole.</summary>
    private static readonly Dictionary<string, Func<DeepSpeedNode, DeepSpeedDocument, Verdict?>> sections = new()
    {
        [ZeroRules.Section] = (_, _) => null,
        [$"{ZeroRules.Section}.offload_optimizer"] = (_, _) => null,
        ["bf16"] = (_, _) => null,
        ["bfloat16"] = (_, _) => null,
        ["fp16"] = (_, _) => null,
        ["optimizer"] = OptimizerRules.Refusal,
        ["optimizer.params"] = (_, _) => null,
        ["scheduler"] = SchedulerRules.Refusal,
        ["scheduler.params"] = (_, _) => null,
        ["activation_checkpointing"] = (_, _) => null,
    };

    private readonly SettingLocator places = new(text);
    private readonly List<DeepSpeedKey> keys = [];
    private int refused;

    /// <summary>Every key in the order of the file, then the defaults that count.</summary>
    public IReadOnlyList<DeepSpeedKey> Keys()
    {
        Walk(file.Root);
        if (file.Find(ZeroRules.Section) is { IsObject: true } && file.Find($"{ZeroRules.Section}.stage") is null)
            AddDefault($"{ZeroRules.Section}.stage", ZeroRules.NoStage);
        foreach (var (key, verdict) in SchedulerRules.Defaults(file))
            AddDefault(key, verdict);
        if (OptimizerRules.DefaultRate(file) is { } rate)
            AddDefault("optimizer.params.lr", rate);
        return keys;
    }

    private void Walk(DeepSpeedNode section)
    {
        foreach (var child in section.Children)
        {
            if (refused == Most)
                return;
            var whole = sections.GetValueOrDefault(child.Path);
            if (!child.Name.Contains('.') && child.IsObject && whole is not null && whole(child, file) is null)
                Walk(child);
            else
                Add(child, Ranged(Settle(child, section)));
        }
    }

    private Verdict Settle(DeepSpeedNode node, DeepSpeedNode section)
    {
        var (rule, whole) = (rules.GetValueOrDefault(node.Path), sections.GetValueOrDefault(node.Path));
        if (node.Name.Contains('.') || rule is null && whole is null)
            return Unknown(node, section);
        if (node.IsNull)
            return Verdict.Honoured("null: as if it were not written");
        if (node.IsAuto)
            return Verdict.Honoured("memopt decides");
        if (node.IsObject && whole?.Invoke(node, file) is { } refusal)
            return refusal;
        return rule is null ? Verdict.Wrong(node, "an object") : rule(node, file);
    }

    /// <summary>DeepSpeed refuses a key that it does not know in a section, and passes over one at the top.</summary>
    private static Verdict Unknown(DeepSpeedNode node, DeepSpeedNode section)
    {
        var prefix = section.Path.Length == 0 ? "" : section.Path + ".";
        if (prefix.Length == 0 && node.Name.StartsWith('_'))
            return Verdict.NoEffect("a comment");
        var known = rules
            .Keys.Concat(sections.Keys)
            .Where(key => key.StartsWith(prefix, StringComparison.Ordinal) && !key[prefix.Length..].Contains('.'))
            .Select(key => key[prefix.Length..]);
        var hint = NearestName.Hint(node.Name, known.Distinct());
        if (prefix.Length > 0)
            return Verdict.Refused($"is no key of {section.Path}{hint}; remove it") with { Code = "MEMOPT0002" };
        var owner = $"{ZeroRules.Section}.{node.Name}";
        return Verdict.Refused(
            rules.ContainsKey(owner) || sections.ContainsKey(owner)
                ? $"is at the top, where DeepSpeed passes over it; move it into {ZeroRules.Section}"
                : $"is no key of DeepSpeed, which passes over it at the top{hint}; remove it"
        ) with
        {
            Code = "MEMOPT0002",
        };
    }

    /// <summary>A refusal where a setting cannot have the value.</summary>
    private Verdict Ranged(Verdict verdict)
    {
        var scratch = new ConfigProblems("", text);
        var overrides = new ConfigOverrides(scratch);
        foreach (var assignment in verdict.Settings)
            overrides.Apply(new RunConfig(), $"{assignment}");
        return scratch.Count == 0
            ? verdict
            : Verdict.Refused(
                string.Join("; ", scratch.All.Select(problem => $"{problem.Path} {problem.Message}"))
            ) with
            {
                Code = scratch.All[0].Code,
            };
    }

    private void Add(DeepSpeedNode node, Verdict verdict)
    {
        var (line, column) = places.At(node.Offset);
        keys.Add(new(node.Path, node.Line, verdict, line, column));
        refused += verdict.Outcome == KeyOutcome.Refused ? 1 : 0;
    }

    private void AddDefault(string key, Verdict verdict) => keys.Add(new(key, null, verdict, 0, 0));
}
