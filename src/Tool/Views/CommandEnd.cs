namespace Memopt.Tool.Views;

/// <summary>How a command other than <c>run</c> has ended.</summary>
/// <param name="Status">finished, stopped or failed.</param>
/// <param name="Text">One line for people.</param>
internal sealed record CommandEnd(string Status, string Text)
{
    /// <summary>The recorded run, or null.</summary>
    public string? RunId { get; init; }

    /// <summary>Loss of an evaluation, nats.</summary>
    public double? Loss { get; init; }

    /// <summary>Accuracy of an evaluation, 0 to 1.</summary>
    public double? Accuracy { get; init; }

    /// <summary>The result in one line for people.</summary>
    public string? Judged { get; init; }
}
