namespace Memopt.Core;

/// <summary>A fault that the user can fix: what was wrong, what was found, and the next command to run. Printed
/// without a stack trace.</summary>
public sealed class UserFault(string what, string? found = null, string? next = null, Exception? inner = null)
    : Exception(Short(what), inner)
{
    private const int Longest = 2_000;

    /// <summary>What was there instead.</summary>
    public string? Found { get; } = found is null ? null : Short(found);

    /// <summary>A command that fixes it or shows more.</summary>
    public string? Next { get; } = next;

    /// <summary>Whether what was asked for was in order and could not be done all the same: a server that does not
    /// answer, a full disk, too little memory (exit code 1). Otherwise the config, the data, the model or the arguments
    /// are for the user to fix (exit code 2).
    /// </summary>
    public bool Failed { get; init; }

    /// <summary>Whether a <see cref="Budget"/> was used up; then no other attempt is made.</summary>
    internal bool OverBudget { get; init; }

    /// <summary>Every problem behind the fault, when there are several (a config file's, say).</summary>
    public IReadOnlyList<Problem> Problems { get; init; } = [];

    /// <summary>A text that may quote a stranger's file, which may be large, cut to what one would read.</summary>
    internal static string Short(string text) =>
        text.Length <= Longest ? text : $"{text.AsSpan(0, Longest)}… ({text.Length:N0} characters)";

    /// <summary>All of it, for a program that does not catch it.</summary>
    public override string ToString() =>
        string.Join(
            Environment.NewLine,
            new[] { Message, Found is null ? null : $"  found: {Found}" }
                .Concat(Problems.Select(problem => $"  {problem.Path} {problem.Message}"))
                .Append(Next is null ? null : $"  next:  {Next}")
                .Append(base.ToString())
                .OfType<string>()
        );
}
