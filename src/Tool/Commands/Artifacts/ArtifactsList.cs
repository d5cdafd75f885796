using System.CommandLine;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts ls</c>: artifacts and where they are.</summary>
internal static class ArtifactsList
{
    /// <summary>An artifact.</summary>
    /// <param name="Hash">Of its content.</param>
    /// <param name="Files">How many.</param>
    /// <param name="Bytes">Of all files.</param>
    /// <param name="Local">Whether it is here.</param>
    /// <param name="Uploaded">Whether it is in the storage account; null when there is none.</param>
    private sealed record Row(string Hash, int Files, long Bytes, bool Local, bool? Uploaded);

    public static Command Create()
    {
        var (at, json) = (ArtifactsCommand.AtOption(), Shell.JsonOption());
        var command = new Command(
            "ls",
            "List artifacts and where they are.\n\nExample:\n  dotnet memopt artifacts ls --json"
        )
        {
            at,
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
            {
                var rows = Rows(ArtifactPlaces.Of(parsed.GetValue(at), stop));
                if (parsed.GetValue(json))
                    Shell.Print(rows);
                else
                    Show(rows);
                return 0;
            }
        );
        return command;
    }

    private static List<Row> Rows(ArtifactPlaces places)
    {
        var (local, uploaded) = (places.Local.List().ToHashSet(), places.Remote?.Uploaded().ToHashSet());
        return local
            .Union(uploaded ?? [])
            .Order(StringComparer.Ordinal)
            .Select(hash =>
            {
                var files = places.All.Files(hash);
                return new Row(
                    hash,
                    files.Count,
                    files.Sum(file => file.Bytes),
                    local.Contains(hash),
                    uploaded?.Contains(hash)
                );
            })
            .ToList();
    }

    private static void Show(List<Row> rows)
    {
        var table = new FittedTable("--json")
            .AddColumn("artifact")
            .AddColumn("files", right: true, rank: 3)
            .AddColumn("size", right: true)
            .AddColumn("where", rank: 1);
        foreach (var row in rows)
            table.AddRow(
                row.Hash,
                $"{row.Files}",
                LedgerTable.Size(row.Bytes),
                (row.Local, row.Uploaded) switch
                {
                    (true, true) => "here, uploaded",
                    (true, false) => "here only",
                    (true, null) => "here",
                    _ => "uploaded",
                }
            );
        Shell.Output.Write(table);
    }
}
