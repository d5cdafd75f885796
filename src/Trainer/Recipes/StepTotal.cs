namespace Memopt.Trainer.Recipes;

/// <summary>Sums over the micro-batches of all ranks of a step.</summary>
/// <param name="Terms">Terms of the loss: trained tokens.</param>
/// <param name="Tokens">Tokens without padding.</param>
internal readonly record struct StepTotal(long Terms, long Tokens);
