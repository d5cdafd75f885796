namespace Memopt.Trainer.Data;

/// <summary>One thing wrong with one row.</summary>
internal sealed class RowFault(string what, string? why = null)
    : Exception(Short(why is null ? what : $"{what}: {why}"))
{
    private const int Longest = 500;

    // What a row holds may be quoted, and is as long as it likes.
    private static string Short(string text) => text.Length > Longest ? $"{text[..Longest]} …" : text;
}
