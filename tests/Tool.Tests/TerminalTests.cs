using System.Diagnostics;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Spectre.Console;

namespace Memopt.Tool.Tests;

/// <summary>What strangers named reaches a terminal as text and never as a command.</summary>
public sealed class TerminalTests : IDisposable
{
    private const string Hostile = "a\u001b[31mred\u001b[0m\u001b]0;title\u0007\b\r\u009b2J\u202egpj.exe [bold]b[/]";

    private readonly string folder = Directory.CreateTempSubdirectory("memopt-terminal-").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Theory]
    [InlineData("plain text, ünïcode 😀 שלום\n\tnext\r\n", "plain text, ünïcode 😀 שלום\n\tnext\r\n")]
    [InlineData("\u001b[2J", "␛[2J")]
    [InlineData("done\rgone", "done␍gone")]
    [InlineData("\0\a\b\u007f\r", "␀␇␈\\u007f␍")]
    [InlineData("\u009b31m\u0085", "\\u009b31m\\u0085")]
    [InlineData("\u202e\u2066\u2028", "\\u202e\\u2066\\u2028")]
    public void Control_characters_are_printed_escaped(string text, string shown) =>
        Assert.Equal(shown, TerminalText.Visible(text));

    [Fact]
    public void Console_with_colours_keeps_its_own_escape_sequences_and_escapes_those_of_data()
    {
        using var written = new StringWriter();
        var console = TerminalText.Console(written, redirected: true, AnsiSupport.Yes);
        console.Profile.Capabilities.Interactive = true;
        console.MarkupLineInterpolated($"[red]{"x" + Hostile}[/]");
        console.Write(new Table().AddColumn(Markup.Escape(Hostile)).AddRow(Markup.Escape(Hostile)));
        console.Progress().Start(context => context.AddTask(Markup.Escape(Hostile), maxValue: 1).Value = 1);
        var text = written.ToString();
        Assert.Contains("\u001b[", text);
        Assert.Contains("␛[31mred", text);
        Assert.DoesNotContain("\u001b[31mred", text);
        Assert.DoesNotContain("\u001b]0;title", text);
        Assert.DoesNotContain("\u0007", text);
        Assert.DoesNotContain("\u202e", text);
    }

    [Fact]
    public void Names_of_models_runs_and_tags_are_printed_escaped()
    {
        Directory.CreateDirectory(Path.Combine(folder, "model"));
        File.WriteAllText(
            Path.Combine(folder, "model", "config.json"),
            System.Text.Json.JsonSerializer.Serialize(
                new
                {
                    architectures = new[] { Hostile },
                    model_type = Hostile,
                    hidden_size = 8,
                }
            )
        );
        using (var store = new LiteRunStore(Path.Combine(folder, ".memopt", "store")))
        using (
            var run = store.Begin(
                new RunStart
                {
                    Id = "r1",
                    Experiment = Hostile,
                    Config = "{}",
                    Tags = new Dictionary<string, string> { [Hostile] = Hostile },
                    Ledger = [new(Hostile, 1, Hostile, Hostile)],
                }
            )
        )
        {
            run.Append(new RunEvent(DateTimeOffset.UtcNow, 0, "oom", Hostile));
            run.Append(new MetricRow(1, new Dictionary<string, double> { [Hostile] = 1 }));
            run.End(new Memopt.Tracking.Outcome(RunStatus.Failed, Hostile) { Ended = DateTimeOffset.UtcNow });
        }
        foreach (
            var command in new[]
            {
                "plan --model model",
                "runs list --columns experiment",
                "runs show r1",
                "runs tail r1",
                "runs list --filter X",
                "adapters show X",
                "cache rm X",
                "config check X",
            }
        )
        {
            var said = Cli.Run(
                folder,
                [.. command.Split(' ').Select(argument => argument == "X" ? Hostile : argument)]
            );
            Assert.DoesNotContain(
                said.Output + said.Error,
                c => c is < ' ' and not ('\n' or '\t') or (>= '\u007f' and < '\u00a0') or '\u202e'
            );
            Assert.True(
                said.Error.Length + said.Output.Length > 0
                    && !said.Error.Contains("should not have", StringComparison.Ordinal),
                $"{command}: {said.Error}"
            );
        }
        // For a program the text is whole.
        Assert.Equal(Hostile, (string?)Cli.Run(folder, "runs", "show", "r1", "--json").Json["experiment"]);
    }

    [Fact]
    public void Token_is_read_from_standard_input_and_warned_about_in_an_argument()
    {
        using var weak = Ui("--token-stdin");
        weak.StandardInput.WriteLine("1234");
        weak.StandardInput.Close();
        var refused = Cli.Wait(weak);
        Assert.Equal(2, refused.Exit);
        Assert.Contains("found: 4 characters", refused.Error);
        Assert.Contains("--token-stdin", Cli.Run(folder, "ui", "--token", "1234").Error.Split('\n')[0]);
        Assert.DoesNotContain("--token ", Cli.Run(folder, "ui", "--help").Output);

        using var served = Ui("--token-stdin", "--port", "0");
        served.StandardInput.WriteLine("a token of enough characters");
        served.StandardInput.Close();
        Assert.EndsWith("?token=a%20token%20of%20enough%20characters", served.StandardOutput.ReadLine());
        Cli.Interrupt(served);
        served.WaitForExit();
    }

    private Process Ui(params string[] arguments)
    {
        var start = Cli.Command(folder, ["ui", .. arguments]);
        start.RedirectStandardInput = true;
        return Process.Start(start)!;
    }
}
