namespace Memopt.Text.Tokenizers;

/// <summary>A part of a pattern: text as .NET has it, or a set of characters.</summary>
/// <param name="Text">As .NET spells it. A class that .NET understands alike keeps its text, which is matched faster
/// than a list of ranges.</param>
/// <param name="Set">The characters; null for what is no set.</param>
/// <param name="Negated">Whether all characters but those of the set are meant.</param>
internal sealed record PatternPiece(string Text, CodePointSet? Set = null, bool Negated = false);
