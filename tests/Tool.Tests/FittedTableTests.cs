using Memopt.Tool.Views;
using Spectre.Console;

namespace Memopt.Tool.Tests;

/// <summary>Tables on consoles of any width: ids stay whole, columns go by rank, and a note says which.</summary>
public sealed class FittedTableTests
{
    private const string Id = "261130102055fdd3bf",
        Other = "261130102055fdd3c0";

    private static FittedTable Runs()
    {
        var table = new FittedTable("--json")
            .AddColumn("run_id")
            .AddColumn("experiment", rank: 3)
            .AddColumn("status", rank: 1)
            .AddColumn("loss", right: true, rank: 2)
            .AddColumn("why", breaks: true, rank: 4);
        table.AddRow(
            Id,
            "word-class",
            "[green]finished[/]",
            "10.542",
            "a reason of several words that may be broken over lines"
        );
        table.AddRow(Other, "word-class", "failed", "0.5", "");
        return table;
    }

    private static List<string> Lines(FittedTable table, int width)
    {
        using var text = new StringWriter();
        var console = AnsiConsole.Create(
            new AnsiConsoleSettings { Out = new AnsiConsoleOutput(text), Ansi = AnsiSupport.No }
        );
        console.Profile.Width = width;
        console.Write(table);
        return [.. text.ToString().Split('\n')];
    }

    [Theory]
    [InlineData(1000, "run_id experiment status loss why")]
    [InlineData(80, "run_id experiment status loss why")]
    [InlineData(70, "run_id experiment status loss")]
    [InlineData(50, "run_id status loss")]
    [InlineData(40, "run_id status")]
    [InlineData(25, "run_id")]
    [InlineData(10, "run_id")]
    public void Table_of_a_given_width_shows_the_columns_that_fit_by_rank(int width, string expected)
    {
        var lines = Lines(Runs(), width);
        Assert.Equal(
            expected.Split(' '),
            lines.First(line => line.Contains("run_id")).Split(' ', StringSplitOptions.RemoveEmptyEntries)
        );
        Assert.All(lines, line => Assert.True(line.TrimEnd().Length <= Math.Max(width, Id.Length + 4), line));
        // Each id stands on one line, whole.
        Assert.Single(lines, line => line.Contains(Id));
        Assert.Single(lines, line => line.Contains(Other));
        var note = string.Join(' ', lines.Select(line => line.Trim()));
        foreach (var left in new[] { "experiment", "status", "loss", "why" }.Except(expected.Split(' ')))
            Assert.Contains(left, note[note.IndexOf("leave no room for", StringComparison.Ordinal)..]);
        Assert.Equal(expected.Split(' ').Length < 5, note.Contains("leave no room for"));
    }

    [Fact]
    public void Prose_in_a_table_wraps_and_loses_no_word()
    {
        var lines = Lines(Runs(), 80);
        var reason = string.Join(
            ' ',
            lines.Where(line => line.Length > 56).Select(line => line[56..].Trim()).Where(part => part.Length > 0)
        );
        Assert.Contains("a reason of several words that may be broken over lines", reason);
    }

    [Fact]
    public void Metrics_are_formatted_in_the_unit_that_their_name_states()
    {
        Assert.Equal("88.2 MiB", Human.Metric("memory_bytes", 92_480_000));
        Assert.Equal("12,346/s", Human.Metric("tokens_per_second", 12_345.6));
        Assert.Equal("2 min 5 s", Human.Metric("seconds", 125));
        Assert.Equal("2e-4", Human.Metric("learning_rate", 0.0002));
        Assert.Equal("NaN", Human.Metric("loss", double.NaN));
        Assert.Equal("0.0913", Human.Metric("eval_loss", 0.0913));
        Assert.Equal(
            ["340 ms", "4.8 s", "3 h 2 min", "2 d 1 h"],
            new[] { 0.34, 4.8, 10_920, 176_400 }.Select(seconds => Human.Duration(TimeSpan.FromSeconds(seconds)))
        );
        Assert.Equal(
            ["1e-5", "64", "[0.9,0.999]"],
            new[] { "0.00001", "64", "[\n  0.9,\n  0.999\n]" }.Select(Human.Setting)
        );
    }
}
