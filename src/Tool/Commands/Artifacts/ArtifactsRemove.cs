using System.CommandLine;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts rm</c>: removes artifacts, here and in the storage account.</summary>
internal sealed class ArtifactsRemove
{
    private readonly Argument<string[]> artifacts = ArtifactsCommand.ArtifactsArgument();
    private readonly Option<bool> checkpoints = new("--checkpoints")
    {
        Description = "Remove the uploaded checkpoints of all finished runs of this store.",
    };
    private readonly Option<bool> force = new("--force")
    {
        Description = "Also remove artifacts that a run or the registry names, and while a run is training.",
    };
    private readonly Option<bool> dry = new("--dry-run") { Description = "List the artifacts and remove none." };
    private readonly Option<string?> at = ArtifactsCommand.AtOption();
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new ArtifactsRemove().Declare();

    private Command Declare()
    {
        var command = new Command(
            "rm",
            "Remove artifacts here and in the storage account. Content that another artifact has stays. An "
                + "artifact that a run or the registry of adapters names is refused.\n\nExample:\n  "
                + "dotnet memopt artifacts rm 3f2a --dry-run\n  dotnet memopt artifacts rm --checkpoints"
        )
        {
            artifacts,
            checkpoints,
            force,
            dry,
            at,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var places = ArtifactPlaces.Of(parsed.GetValue(at), stop);
        using var store = CurrentProject.Known();
        var removal = new ArtifactRemoval(
            places,
            store,
            parsed.GetValue(artifacts)!,
            withCheckpoints: parsed.GetValue(checkpoints)
        );
        if (!parsed.GetValue(force))
            removal.RefuseNeeded();
        if (!parsed.GetValue(dry))
            removal.Apply();
        if (parsed.GetValue(json))
            Print(removal, applied: !parsed.GetValue(dry));
        else
            Show(removal, places, parsed.GetValue(dry) ? "Would remove" : "Removed");
        return 0;
    }

    private static void Print(ArtifactRemoval removal, bool applied) =>
        Shell.Print(new { applied, artifacts = removal.Leaving });

    private static void Show(ArtifactRemoval removal, ArtifactPlaces places, string done)
    {
        foreach (var row in removal.Leaving)
        {
            var shared = LedgerTable.Size(row.Bytes - row.Freed);
            var stays = row.Freed < row.Bytes ? $", of which {shared} stays for other artifacts" : "";
            var names = string.Join(", ", row.NamedBy);
            Shell.Output.WriteLine($"{row.Hash[..12]}  {LedgerTable.Size(row.Bytes)}{stays}  {names}");
        }
        var count = removal.Leaving.Count;
        Console.Out.WriteLine(
            $"{done} {count} {(count == 1 ? "artifact" : "artifacts")}, {LedgerTable.Size(removal.Freed)}, here"
                + $"{(places.Remote is { } account ? $" and in {account.Place}" : "")}."
        );
    }
}
