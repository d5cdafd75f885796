using System.Text.Json;
using Memopt.Core;

namespace Memopt.Trainer.Config.Reading;

/// <summary>A setting that is being read, for what is wrong with it.</summary>
/// <param name="Path">As in the file: <c>adapter.rank</c>; empty for the file as a whole.</param>
/// <param name="Problems">The problems of the file.</param>
/// <param name="CommandLine">Whether the value comes from the command line and so has no place in the file.</param>
internal readonly record struct SettingContext(string Path, ConfigProblems Problems, bool CommandLine = false)
{
    /// <summary>A setting in this one.</summary>
    public SettingContext Of(string name) => this with { Path = Path.Length == 0 ? name : $"{Path}.{name}" };

    /// <summary>A problem at the token that the reader is at.</summary>
    public void Wrong(ref Utf8JsonReader reader, string message, string code) =>
        Wrong((int)reader.TokenStartIndex, message, code);

    /// <summary>A problem at a byte of the text that is read.</summary>
    public void Wrong(int offset, string message, string code)
    {
        var problem = new Problem(Path, message, Code: code);
        if (CommandLine)
            Problems.Add(problem);
        else
            Problems.AddAt(offset, problem);
    }
}
