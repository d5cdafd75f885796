using System.CommandLine;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts sync</c>: uploads what is only here.</summary>
internal static class ArtifactsSync
{
    public static Command Create()
    {
        var artifacts = ArtifactsCommand.ArtifactsArgument(" All when left out.");
        var (at, json) = (ArtifactsCommand.AtOption(), Shell.JsonOption());
        var command = new Command(
            "sync",
            "Upload what is only here, going on where an earlier upload was cut off. What the account has of an "
                + "artifact that is named is read, and sent again where it is missing or damaged.\n\nExample:\n  "
                + "dotnet memopt artifacts sync\n  1 artifact uploaded, 27 blocks, 52.4 MiB"
        )
        {
            artifacts,
            at,
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
            {
                var places = ArtifactPlaces.Of(parsed.GetValue(at), stop);
                var account = places.Account;
                var named = parsed.GetValue(artifacts) is { Length: > 0 } some
                    ? some.Select(places.Find).ToList()
                    : null;
                using var runs = CurrentProject.Known();
                var (hashes, sent) = account.Sync(runs, named);
                places.Registry.Sync();
                if (parsed.GetValue(json))
                    Shell.Print(new { uploaded = hashes, sent });
                else
                    Console.Out.WriteLine(
                        $"{hashes.Count} {(hashes.Count == 1 ? "artifact" : "artifacts")} uploaded, {sent.Blocks} "
                            + $"blocks, {LedgerTable.Size(sent.Bytes)}"
                    );
                return 0;
            }
        );
        return command;
    }
}
