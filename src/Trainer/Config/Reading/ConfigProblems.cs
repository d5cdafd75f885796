using Memopt.Core;

namespace Memopt.Trainer.Config.Reading;

/// <summary>All that is wrong with a settings file and with what the command line changes of it.</summary>
/// <param name="file">The file's name.</param>
/// <param name="text">Its text.</param>
internal sealed class ConfigProblems(string file, ConfigText text)
{
    private const int Most = 1_000;

    private readonly SettingLocator locator = new(text);
    private readonly List<Problem> found = [];

    public string File => file;

    public int Count => found.Count;

    public IReadOnlyList<Problem> All => found;

    // A file of a megabyte can have a hundred thousand problems, and near names are looked for at each.
    public void Add(Problem problem)
    {
        found.Add(problem);
        if (found.Count == Most)
            Throw($"fix these first: reading ended at problem {Most:N0}");
    }

    /// <summary>Adds a problem at a byte of the file.</summary>
    public void AddAt(int offset, Problem problem)
    {
        var (line, column) = locator.At(offset);
        Add(problem with { File = file, Line = line, Column = column });
    }

    /// <summary>Adds a problem that shows only when all settings are read. Its place is that of the setting; a setting
    /// that is not written has none.</summary>
    /// <param name="setting"><c>section.setting</c>; with slashes when a part has dots.</param>
    /// <param name="message">The setting's fault, and how it would be right.</param>
    /// <param name="code">A code of docs/diagnostics.md.</param>
    public void AddOf(string setting, string message, string code)
    {
        var (line, column) = locator.Find(setting.Split(setting.Contains('/') ? '/' : '.')) ?? (0, 0);
        Add(new(setting.Replace('/', '.'), message, file, line, column, code));
    }

    /// <summary>Ends the reading when anything was wrong.</summary>
    /// <param name="next">The command that shows more.</param>
    public void Throw(string next)
    {
        if (found.Count > 0)
        {
            throw new UserFault(
                found.Count == 1 ? $"{file} has a problem." : $"{file} has {found.Count} problems.",
                next: next
            )
            {
                Problems = [.. found.OrderBy(problem => problem.Line).ThenBy(problem => problem.Column)],
            };
        }
    }
}
