namespace Memopt.Trainer.Weights;

/// <summary>Reports at once and on the same thread; <see cref="Progress{T}"/> would do so later, on another.</summary>
internal sealed class SynchronousProgress(Action<int> report) : IProgress<int>
{
    public void Report(int value) => report(value);
}
