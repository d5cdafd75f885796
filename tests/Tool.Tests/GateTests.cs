namespace Memopt.Tool.Tests;

/// <summary>Results that are compared with the best run before.</summary>
public sealed class GateTests
{
    [Fact]
    public void Gate_with_other_evaluation_data_compares_with_no_run_and_reports_it()
    {
        var folder = Cli.NewProject(steps: 2);
        var first = (string)Cli.Run(folder, "run", "--json").Json["runId"]!;
        var rows = File.ReadAllLines(Path.Combine(folder, "eval.jsonl"));
        File.WriteAllLines(Path.Combine(folder, "eval.jsonl"), rows.Skip(1));
        var second = Cli.Run(folder, "run", "--from-start", "--json");
        Assert.True(second.Exit == 0, second.Error);
        Assert.NotEqual(first, (string)second.Json["runId"]!);

        var gate = Cli.Run(folder, "gate", "--no-regression");
        Assert.Equal(0, gate.Exit);
        Assert.Contains($"Nothing to compare with: run {first}", gate.Error);

        // On the rows of the first run there is a run to compare with, and the same training is no worse.
        File.WriteAllLines(Path.Combine(folder, "eval.jsonl"), rows);
        Assert.Equal(0, Cli.Run(folder, "run", "--from-start").Exit);
        gate = Cli.Run(folder, "gate", "--no-regression");
        Assert.Equal((0, ""), (gate.Exit, gate.Error));
    }
}
