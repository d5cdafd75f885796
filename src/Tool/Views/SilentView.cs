using Memopt.Hub;
using Memopt.Tracking;
using Memopt.Trainer.Recipes;

namespace Memopt.Tool.Views;

/// <summary>Shows nothing: the view of a rank other than the main one, of which the log of the run alone
/// tells.</summary>
internal sealed class SilentView : IRunView, IPullWatcher
{
    public double? Loss => null;

    public void Stage(string name, string text) { }

    public void Progress(string name, long done, long total) { }

    public void Ledger(IReadOnlyList<LedgerRow> rows, bool measured) { }

    public void Step(StepRow row, int total) { }

    public IPullWatcher Download(Action<string>? noted) => this;

    public void Note(string text) { }

    public void Advance(string file, long done, long size, long resumed) { }

    public void Finished(Result result, string judged) { }

    public void TrialStarted(int number, int total, string settings) { }

    public void TrialEnded(TrialEnd end) { }

    public IRunView ForTrial(int number) => this;
}
