namespace Memopt.Core;

/// <summary>One thing wrong with a setting or a row of data.</summary>
/// <param name="Path">The setting, as in the file: <c>adapter.rank</c>.</param>
/// <param name="Message">What is wrong and what would be right.</param>
/// <param name="File">The file, or null for a command-line override.</param>
/// <param name="Line">Line from 1; 0 when unknown.</param>
/// <param name="Column">Column from 1; 0 when unknown.</param>
/// <param name="Code">Stable diagnostic code, <c>MEMOPT0001</c> and on: docs/diagnostics.md has them all.</param>
/// <param name="Warning">Whether one can go on all the same.</param>
public sealed record Problem(
    string Path,
    string Message,
    string? File = null,
    int Line = 0,
    int Column = 0,
    string Code = "MEMOPT0001",
    bool Warning = false
)
{
    /// <summary>A message says of the setting what it is, or is a sentence of its own.</summary>
    private string Text =>
        Message.Length > 0 && char.IsUpper(Message[0]) && Path.Length > 0 ? $"{Path}: {Message}" : $"{Path} {Message}";

    /// <summary>The form that MSBuild and editors read: <c>file(line,column): error CODE: text</c>, on one
    /// line.</summary>
    public override string ToString() =>
        $"{(File is null ? "memopt" : Line > 0 ? $"{File}({Line},{Math.Max(1, Column)})" : File)}: "
        + $"{(Warning ? "warning" : "error")} {Code}: {Text.Trim().ReplaceLineEndings(" ")}";
}
