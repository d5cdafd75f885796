using Memopt.Hub;
using Memopt.Trainer.Recipes;

namespace Memopt.Tool.Views;

/// <summary>Shows a training on standard error: for people, or for a program.</summary>
internal interface IRunView : ITrainingObserver
{
    /// <summary>Loss of the last step; null when there was none.</summary>
    double? Loss { get; }

    /// <summary>Shows one download.</summary>
    /// <param name="noted">Receives each note.</param>
    IPullWatcher Download(Action<string> noted);

    /// <summary>The training has ended, finished or stopped.</summary>
    /// <param name="result">How.</param>
    /// <param name="judged">Loss, evaluation loss and accuracy, as far as there are such.</param>
    void Finished(Result result, string judged);
}
