namespace Memopt.Tracking;

/// <summary>An evaluation: values by name (loss, perplexity, accuracy, tokens) after a step. In the store they are
/// metrics: eval_loss, eval_perplexity, …</summary>
public sealed record EvalRow(int Step, IReadOnlyDictionary<string, double> Values);
