namespace Memopt.Trainer.Config.DeepSpeed;

/// <summary>Says what becomes of a key.</summary>
/// <param name="node">The key's value, which is not null and not "auto".</param>
/// <param name="file">All of the file, for keys that depend on another.</param>
internal delegate Verdict KeyRule(DeepSpeedNode node, DeepSpeedDocument file);

/// <summary>What rules look at besides their own key.</summary>
/// <param name="Root">The file.</param>
/// <param name="Ranks">The world: the ranks that train together.</param>
internal sealed record DeepSpeedDocument(DeepSpeedNode Root, int Ranks)
{
    /// <summary>A value by its path; null when it is not written, or null.</summary>
    public DeepSpeedNode? Find(string path) => Root.Find(path);
}

/// <summary>Rules that many keys have.</summary>
internal static class KeyRules
{
    /// <summary>Any value changes nothing.</summary>
    public static KeyRule NoEffect(string why) => (_, _) => Verdict.NoEffect(why);

    /// <summary>memopt always does what this flag asks for; the other value changes nothing.</summary>
    public static KeyRule Always(bool flag, string why) =>
        Flag(found => found == flag ? Verdict.Honoured(why) : Verdict.NoEffect(why));

    /// <summary>A flag or a section that must be off.</summary>
    /// <param name="why">What to do when it is on.</param>
    public static KeyRule Off(string why) =>
        (node, _) => IsOff(node) ? Verdict.Honoured("off, as in memopt") : Verdict.Refused(why);

    /// <summary>A number that must be at most this.</summary>
    public static KeyRule AtMost(double most, string why) =>
        Number(number => number <= most ? Verdict.Honoured("off, as in memopt") : Verdict.Refused(why));

    public static KeyRule Flag(Func<bool, Verdict> rule) =>
        (node, _) => node.Flag is { } flag ? rule(flag) : Verdict.Wrong(node, "true or false");

    public static KeyRule Number(Func<double, Verdict> rule) =>
        (node, _) => node.Number is { } number ? rule(number) : Verdict.Wrong(node, "a number");

    /// <summary>A number that is a setting's value.</summary>
    public static KeyRule Copied(string setting) =>
        (node, _) => node.Number is null ? Verdict.Wrong(node, "a number") : Verdict.Set(setting, node.Line);

    /// <summary>Whether a value switches its key off: false, 0, an object that is empty or whose "enabled" is
    /// false.</summary>
    private static bool IsOff(DeepSpeedNode node) =>
        node.IsObject
            ? node.Children.Count == 0 || node.Find("enabled") is { Flag: false }
            : node.Flag == false || node.Number == 0 || node.Text == "none";
}
