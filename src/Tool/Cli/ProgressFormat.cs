namespace Memopt.Tool.Cli;

/// <summary>How progress is printed on standard error.</summary>
internal enum ProgressFormat
{
    /// <summary>For people: a live line on a terminal, plain lines when piped.</summary>
    Auto,

    /// <summary>For programs: an object a line.</summary>
    Json,
}
