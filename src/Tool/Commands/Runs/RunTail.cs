using System.Text.Json;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary>The values of a run as they come, a line for each step.</summary>
internal sealed class RunTail(LiteRunStore runs, Run found)
{
    private Run run = found;

    /// <summary>The last step that was shown, and how many events were.</summary>
    private long step = long.MinValue;
    private int events;

    /// <summary>The metrics to show; all when empty.</summary>
    public required IReadOnlySet<string> Metrics { get; init; }

    /// <summary>Whether a line is a JSON object.</summary>
    public required bool Json { get; init; }

    /// <summary>Shows what has come since the last call: steps, of which only the last ones, and events.</summary>
    /// <param name="most">At most so many steps.</param>
    public void Show(int most = int.MaxValue)
    {
        var steps = (Metrics.Count > 0 ? Metrics : run.Metrics.Keys)
            .Where(run.Metrics.ContainsKey)
            .SelectMany(name =>
                runs.Points(run.Start.Id, name, step).Select(point => (point.Step, Name: name, point.Value))
            )
            .GroupBy(value => value.Step, value => KeyValuePair.Create(value.Name, value.Value))
            .OrderBy(values => values.Key)
            .ToList();
        foreach (var values in steps.TakeLast(most))
            Console.Out.WriteLine(Line(values));
        if (steps.Count > 0)
            step = steps[^1].Key;
        var happened = runs.Events(run.Start.Id);
        foreach (var one in happened.Skip(events))
            Shell.Progress.WriteLine($"{one.Time:u}  {one.Kind}: {one.Text}");
        events = happened.Count;
    }

    /// <summary>Shows what comes until the run ends, and then how.</summary>
    public void Follow(CancellationToken stop)
    {
        while (run.Status == RunStatus.Running)
        {
            if (stop.WaitHandle.WaitOne(TimeSpan.FromSeconds(1)))
                return;
            run = runs.Get(run.Start.Id) ?? throw new UserFault($"Run {run.Start.Id} was removed.");
            if (run.Step < step)
                step = run.Step; // it resumed from a previous step
            Show();
        }
        ShowStatus();
    }

    /// <summary>Says how the run stands.</summary>
    public void ShowStatus()
    {
        var verb = run.Status switch
        {
            RunStatus.Finished or RunStatus.Failed => "has",
            RunStatus.Running => "is",
            _ => "was",
        };
        Shell.Progress.WriteLine(
            $"run {run.Start.Id} {verb} "
                + $"{run.Status.ToString().ToLowerInvariant()}{(run.Reason is null ? "" : $": {run.Reason}")}"
        );
    }

    private string Line(IGrouping<long, KeyValuePair<string, double>> step)
    {
        var values = step.GroupBy(value => value.Key, value => value.Value);
        return Json
            ? JsonSerializer.Serialize(
                new { step = step.Key, values = values.ToDictionary(value => value.Key, value => value.Last()) },
                Shell.Lines
            )
            : $"step {step.Key}  "
                + string.Join("  ", values.Select(value => $"{value.Key} {RunsCommand.Brief(value.Last())}"));
    }
}
