using System.Text;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Spectre.Console;

namespace Memopt.Tool.Views;

/// <summary>A token as text, and whether it carries loss.</summary>
internal sealed record TokenView(int Id, string Text, bool Trained);

/// <summary>Rows of a length, in tokens.</summary>
internal sealed record LengthBin(int From, int To, int Rows);

/// <summary>How rows fill sequences of data.maxLength when packed.</summary>
/// <param name="Sequences">Sequences of an epoch.</param>
/// <param name="Filled">Share of their tokens that is no padding.</param>
internal sealed record PackingView(int Sequences, double Filled);

/// <summary>What training will see of its data.</summary>
internal sealed record DataView(
    int Count,
    long Tokens,
    long Trained,
    long Truncated,
    long Dropped,
    long Split,
    long Rejected,
    int Longest,
    IReadOnlyList<LengthBin> Lengths,
    PackingView Packing,
    IReadOnlyList<RowView> Rows
)
{
    private const int Bins = 12;

    public static DataView Of(Dataset data, RunConfig config, ChatEncoder model, int rows)
    {
        var shortest = data.Lengths.Min();
        var width = (data.Longest - shortest) / Bins + 1;
        var bins = new int[Bins];
        foreach (var length in data.Lengths)
            bins[(length - shortest) / width]++;
        // One sequence a step: the steps of an epoch are its sequences.
        var packed = new Batches(
            data.Rows,
            config.Data with
            {
                Packing = true,
            },
            new TrainConfig { BatchSize = 1, Epochs = 1 },
            1
        );
        return new(
            data.Rows.Count,
            data.Tokens,
            data.TargetCount,
            data.Counts.Truncated,
            data.Counts.Dropped,
            data.Counts.Split,
            data.Counts.Rejected,
            data.Longest,
            [
                .. bins.Select(
                        (count, bin) => new LengthBin(shortest + bin * width, shortest + (bin + 1) * width - 1, count)
                    )
                    .Where(bin => bin.From <= data.Longest),
            ],
            new(packed.TotalSteps, packed.EpochTokens / ((double)packed.TotalSteps * config.Data.MaxLength)),
            [.. data.Rows.Take(rows).Select(row => RowView.Of(row, model))]
        );
    }

    public void Write(IAnsiConsole console, string summary)
    {
        Write(console, Rows, summary);
        var most = Math.Max(1, Lengths.Max(bin => bin.Rows));
        var spans = Lengths.Select(bin => $"{bin.From:N0} – {bin.To:N0}").ToList();
        var bar = Math.Clamp(
            console.Profile.Width - 10 - Math.Max(6, spans.Max(span => span.Length)) - Math.Max(4, $"{most:N0}".Length),
            1,
            40
        ); // 10: the table's own blanks
        var table = new FittedTable("--json")
            .AddColumn("tokens", right: true)
            .AddColumn("rows", right: true)
            .AddColumn("");
        foreach (var (span, bin) in spans.Zip(Lengths))
            table.AddRow(span, $"{bin.Rows:N0}", new string('█', (int)Math.Ceiling((double)bar * bin.Rows / most)));
        console.Write(table);
        console.WriteLine(
            $"packed: {Packing.Sequences:N0} sequences, {Packing.Filled:P1} filled; cut {Truncated:N0}, left out "
                + $"{Dropped + Rejected:N0}, split {Split:N0}"
        );
    }

    /// <summary>Rows, the tokens that carry loss in green, or in «» where there are no colours; a new line of the text
    /// shows as ⏎, other control characters as their pictures: data from elsewhere commands no terminal.
    /// </summary>
    public static void Write(IAnsiConsole console, IReadOnlyList<RowView> rows, string summary)
    {
        var colours =
            console.Profile.Capabilities.Ansi && console.Profile.Capabilities.ColorSystem != ColorSystem.NoColors;
        foreach (var row in rows)
        {
            var answer = row.Answer is null ? "" : $", {row.Answer}";
            var trained = row.Tokens.Count(token => token.Trained);
            console.MarkupLineInterpolated(
                $"[bold]line {row.Line}[/]{answer}: {row.Tokens.Count:N0} tokens, [green]{trained:N0} trained[/]"
            );
            var text = new StringBuilder();
            foreach (var stretch in Stretches(row.Tokens))
            {
                var shown = Markup.Escape(string.Concat(stretch.Text.Select(Shown)));
                text.Append(
                    !stretch.Trained ? $"[grey]{shown}[/]"
                    : colours ? $"[black on green]{shown}[/]"
                    : $"«{shown}»"
                );
            }
            console.MarkupLine(text.ToString());
            console.WriteLine();
        }
        console.MarkupLineInterpolated($"{summary}");
    }

    private static string Shown(char character) =>
        character switch
        {
            '\n' => "⏎\n",
            '\t' => "\t",
            < ' ' => ((char)('\u2400' + character)).ToString(),
            '\u007f' => "␡",
            >= '\u0080' and < '\u00a0' => "\ufffd",
            _ => character.ToString(),
        };

    /// <summary>Tokens that follow each other and are alike.</summary>
    private static IEnumerable<(bool Trained, string Text)> Stretches(IReadOnlyList<TokenView> tokens)
    {
        var at = 0;
        while (at < tokens.Count)
        {
            var trained = tokens[at].Trained;
            var count = tokens.Skip(at).TakeWhile(token => token.Trained == trained).Count();
            yield return (trained, string.Concat(tokens.Skip(at).Take(count).Select(token => token.Text)));
            at += count;
        }
    }
}
