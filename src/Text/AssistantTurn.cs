namespace Memopt.Text;

/// <summary>A stretch of a rendered chat that the assistant writes.</summary>
/// <param name="Start">Its first character.</param>
/// <param name="End">Behind its last.</param>
/// <param name="Whole">Whether it reaches to where the next turn begins, behind the mark that ends the turn.</param>
internal readonly record struct AssistantTurn(int Start, int End, bool Whole);
