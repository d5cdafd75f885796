using System.Diagnostics;
using System.Text.Json.Nodes;

namespace Memopt.Tool.Tests;

/// <summary>What cannot be written or opened: no output ends a training, and what is missing is one clear
/// message.</summary>
public sealed class OutputTests
{
    [Theory, InlineData("2>/dev/full"), InlineData("2>&-"), InlineData("<&- >&- 2>&-")]
    public void Training_whose_output_cannot_be_written_ends_successfully(string streams)
    {
        var folder = Cli.NewProject(
            """{ "data": { "train": "train.jsonl" }, "train": { "steps": 2, "batchSize": 2 } }"""
        );
        Assert.Equal(0, Shell(folder, $"$MEMOPT run {streams}").Exit);
        Assert.True(File.Exists(Path.Combine(folder, ".memopt", "memopt", "adapter", "adapter_model.safetensors")));
    }

    [Fact]
    public void Progress_as_JSON_is_one_object_a_line()
    {
        var folder = Cli.NewProject();
        var outcome = Cli.Run(folder, "run", "--progress", "json", "--set", "train.steps=4");
        Assert.Equal(0, outcome.Exit);
        var records = outcome.Error.Trim().Split('\n').Select(line => JsonNode.Parse(line)!.AsObject()).ToList();
        Assert.All(records, record => Assert.True(DateTimeOffset.TryParse((string?)record["time"], out _)));
        string Event(JsonObject record) => (string)record["event"]!;

        var steps = records.Where(record => Event(record) == "step").ToList();
        Assert.Equal([1, 2, 3, 4], steps.Select(step => (int)step["step"]!));
        Assert.All(steps, step => Assert.True((double)step["loss"]! > 0 && (int)step["total"]! == 4));
        var ledgers = records.Where(record => Event(record) == "ledger").Select(record => record["rows"]!.AsArray());
        Assert.Equal([false, true], ledgers.Select(rows => rows.Any(row => row!["measured"] is not null)));
        Assert.Contains(records, record => Event(record) == "stage" && (string?)record["name"] == "evaluation");
        Assert.Contains(
            records,
            record => Event(record) == "progress" && (int)record["done"]! == 8 && (int)record["total"]! == 8
        );

        // The record in the store says the same.
        var last = records[^1];
        Assert.Equal(("finished", "finished"), (Event(last), (string)last["status"]!));
        var run = Cli.Run(folder, "runs", "show", "latest", "--json").Json;
        Assert.Equal((string)run["runId"]!, (string)last["runId"]!);
        Assert.Equal((string)last["runId"]!, (string)records.Single(record => Event(record) == "run")["runId"]!);

        // Up to date: a stage says so, and it ends as finished.
        var again = Cli.Run(folder, "run", "--progress", "json", "--set", "train.steps=4").Error.Trim().Split('\n');
        Assert.Contains(again, line => line.Contains("\"name\":\"done\"", StringComparison.Ordinal));
        Assert.Contains("\"event\":\"finished\"", again[^1]);
    }

    [
        Theory,
        InlineData("init --json >/dev/full", "No space left"),
        InlineData("init --json >&-", "closed"),
        InlineData("init >/dev/full", "No space left")
    ]
    public void Result_that_cannot_be_written_is_reported_in_one_line_on_the_other_stream(
        string command,
        string expected
    )
    {
        var outcome = Shell(Path.GetTempPath(), $"$MEMOPT {command}");
        Assert.Equal(1, outcome.Exit);
        Assert.Single(outcome.Error.TrimEnd().Split('\n'));
        Assert.Contains(expected, outcome.Error);
    }

    [Fact]
    public void Fault_with_one_stream_closed_is_reported_on_the_other()
    {
        var outcome = Shell(Path.GetTempPath(), "$MEMOPT run --jsn --json >/dev/full");
        Assert.Equal(2, outcome.Exit);
        Assert.Contains("did you mean --json?", outcome.Error);
    }

    [Fact]
    public void Output_whose_reader_ends_early_is_no_fault() =>
        Assert.Equal(
            (
                0,
                "# Completion of `dotnet memopt` in bash. In ~/.bashrc:  eval \"$(dotnet memopt completion bash)\"\n",
                ""
            ),
            Parts(Shell(Path.GetTempPath(), "set -o pipefail; $MEMOPT completion bash | head -1"))
        );

    [Fact]
    public void Input_that_is_closed_is_an_empty_prompt()
    {
        var outcome = Shell(Path.GetTempPath(), "$MEMOPT infer <&-");
        Assert.Equal(2, outcome.Exit);
        Assert.Contains("The prompt is empty", outcome.Error);
    }

    [Theory, InlineData(64), InlineData(128), InlineData(255)]
    public void Open_file_limit_that_is_too_low_is_named(int limit)
    {
        var outcome = Shell(Path.GetTempPath(), $"ulimit -n {limit}; $MEMOPT init --json");
        Assert.Equal((1, ""), (outcome.Exit, outcome.Output));
        Assert.Equal(
            $"error: Too few files may be open at once.\n  found: a limit of {limit}; 256 are needed\n"
                + "  next:  ulimit -n 1024   (where that is refused, raise the limit of the user or the container)\n",
            outcome.Error
        );
    }

    [
        Theory,
        InlineData("dotnet memopt runs l", "list"),
        InlineData("dotnet memopt runs list --lim", "--limit"),
        InlineData("dotnet memopt run --set train.lea", "train.learningRate="),
        InlineData("dotnet-memopt doc", "doctor")
    ]
    public void Bash_completes_commands_options_and_settings(string typed, string expected)
    {
        // As bash calls it: the words, the place among them, and the line; dotnet is this build's tool.
        var words = string.Join(' ', typed.Split(' ').Select(word => $"'{word}'"));
        var outcome = Shell(
            Path.GetTempPath(),
            $$"""
            dotnet() { shift; $MEMOPT "$@"; }
            eval "$($MEMOPT completion bash)"
            COMP_WORDS=({{words}}); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE='{{typed}}'; COMP_POINT=${#COMP_LINE}
            compopt() { :; }
            _memopt; printf '%s\n' "${COMPREPLY[@]}"
            """
        );
        Assert.Equal((0, expected + "\n", ""), Parts(outcome));
    }

    private static (int, string, string) Parts(Outcome outcome) => (outcome.Exit, outcome.Output, outcome.Error);

    private static Outcome Shell(string folder, string script)
    {
        var start = new ProcessStartInfo(
            "bash",
            ["-c", $"MEMOPT='dotnet exec {Cli.Tool}'; {script.Replace("$MEMOPT", "command $MEMOPT")}"]
        )
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
        };
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        return Cli.Wait(process);
    }
}
