namespace Memopt.Trainer.Data;

/// <summary>A pair of a preferred answer and another, which is for another kind of training.</summary>
internal sealed class PairFault() : Exception("preference pairs (chosen, rejected) are not trained on yet");
