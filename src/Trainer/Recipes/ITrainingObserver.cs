using Memopt.Tracking;

namespace Memopt.Trainer.Recipes;

/// <summary>Receives what happens in a training; prints or stays silent.</summary>
internal interface ITrainingObserver
{
    /// <summary>The run is being recorded under this id.</summary>
    void RunStarted(string runId) { }

    /// <summary>A stage begins or has a result.</summary>
    void Stage(string name, string text);

    /// <summary>Within a long stage: done of total.</summary>
    void Progress(string name, long done, long total);

    /// <summary>The memory ledger, before training and after it (then with measured values).</summary>
    void Ledger(IReadOnlyList<LedgerRow> rows, bool measured);

    void Step(StepRow row, int total);
}
