namespace Memopt.Trainer;

/// <summary>A fault that the user can mend: what was wrong, what was found, and the next command to run. Printed without a stack trace.</summary>
public sealed class UserFault(string what, string? found = null, string? next = null, Exception? inner = null)
    : Exception(what, inner)
{
    /// <summary>What was there instead.</summary>
    public string? Found { get; } = found;

    /// <summary>A command that mends it or shows more.</summary>
    public string? Next { get; } = next;

    /// <summary>Every problem behind the fault, when there are several (a config file's, say).</summary>
    public IReadOnlyList<Problem> Problems { get; init; } = [];
}

/// <summary>One thing wrong with a setting or a row of data.</summary>
/// <param name="Path">The setting, as in the file: <c>adapter.rank</c>.</param>
/// <param name="Message">What is wrong and what would be right.</param>
/// <param name="File">The file, or null for a command-line override.</param>
/// <param name="Line">Line from 1; 0 when unknown.</param>
/// <param name="Column">Column from 1; 0 when unknown.</param>
/// <param name="Code">Stable diagnostic code, <c>MEMOPT0001</c> and on.</param>
public sealed record Problem(string Path, string Message, string? File = null, int Line = 0, int Column = 0, string Code = "MEMOPT0001");
