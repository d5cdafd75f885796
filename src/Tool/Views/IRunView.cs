using Memopt.Core;
using Memopt.Hub;
using Memopt.Tool.Cli;
using Memopt.Trainer.Recipes;

namespace Memopt.Tool.Views;

/// <summary>Shows the progress of a command on standard error: for people, or for a program.</summary>
internal interface IRunView : ITrainingObserver
{
    /// <summary>The view that <c>--progress</c> asks for.</summary>
    static IRunView For(ProgressFormat format) =>
        format == ProgressFormat.Json ? new JsonObserver() : new ConsoleObserver();

    /// <summary>Loss of the last step; null when there was none.</summary>
    double? Loss { get; }

    /// <summary>Shows one download.</summary>
    /// <param name="noted">Receives each note.</param>
    IPullWatcher Download(Action<string>? noted = null);

    /// <summary>The training has ended, finished or stopped.</summary>
    /// <param name="result">How.</param>
    /// <param name="judged">Loss, evaluation loss and accuracy, as far as there are such.</param>
    void Finished(Result result, string judged);

    /// <summary>A command other than <c>run</c> has ended. People read its result on standard output.</summary>
    void Finished(CommandEnd end) { }

    /// <summary>Does a command's work; reports the end of the command when a signal cancels it.</summary>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    sealed T EndStopped<T>(Func<T> work)
    {
        try
        {
            return work();
        }
        catch (OperationCanceledException)
        {
            Finished(new CommandEnd(StageNames.Stopped, "stopped on request"));
            throw;
        }
    }

    /// <summary>A sweep begins one of its combinations.</summary>
    /// <param name="number">The combination's number, from 1.</param>
    /// <param name="total">Combinations of the sweep.</param>
    /// <param name="settings">The combination's settings, for people.</param>
    void TrialStarted(int number, int total, string settings);

    /// <summary>A sweep has ended one of its combinations.</summary>
    void TrialEnded(TrialEnd end);

    /// <summary>The view of the run that trains a combination.</summary>
    IRunView ForTrial(int number);
}
