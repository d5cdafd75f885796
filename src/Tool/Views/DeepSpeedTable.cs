using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Config.DeepSpeed;
using Spectre.Console;

namespace Memopt.Tool.Views;

/// <summary>What becomes of each key of a DeepSpeed file, for people.</summary>
internal static class DeepSpeedTable
{
    private const int Longest = 40;

    public static FittedTable Of(DeepSpeedFile file)
    {
        var table = new FittedTable("--json")
            .AddColumn("key", rank: 0)
            .AddColumn("value", rank: 3)
            .AddColumn("outcome", rank: 1)
            .AddColumn("setting", rank: 2)
            .AddColumn("why", breaks: true, rank: 4);
        foreach (var key in file.Keys)
            table.AddRow(
                Cell(key.Key),
                Cell(Secrets.Redact(key.Key, key.Value ?? "")),
                Outcome(key.Verdict.Outcome),
                Cell(Settings(key) ?? ""),
                Markup.Escape(Secrets.Redact(key.Verdict.Why))
            );
        return table;
    }

    /// <summary>The settings that a key decides, in one text; null when there are none.</summary>
    public static string? Settings(DeepSpeedKey key) =>
        key.Verdict.Outcome == KeyOutcome.Honoured && key.Verdict.Settings.Count > 0
            ? string.Join(", ", key.Verdict.Settings)
            : null;

    private static string Outcome(KeyOutcome outcome) =>
        outcome switch
        {
            KeyOutcome.Honoured => "[green]honoured[/]",
            KeyOutcome.NoEffect => "no effect",
            _ => "[red]refused[/]",
        };

    private static string Cell(string text) => Markup.Escape(text.Length <= Longest * 2 ? text : text[..Longest] + "…");
}
