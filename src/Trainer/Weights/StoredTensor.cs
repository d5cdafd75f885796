namespace Memopt.Trainer.Weights;

/// <summary>One tensor of a safetensors file: type as spelled there (F32, BF16, …), shape, and where its bytes lie
/// after the header.</summary>
internal sealed record StoredTensor(string Name, string Type, long[] Shape, long From, long To);
