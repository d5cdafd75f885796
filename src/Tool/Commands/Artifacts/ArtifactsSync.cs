using System.CommandLine;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts sync</c>: uploads what is only here.</summary>
internal static class ArtifactsSync
{
    public static Command Create()
    {
        var artifacts = ArtifactsCommand.ArtifactsArgument(" The default is all.");
        var (at, json) = (ArtifactsCommand.AtOption(), Shell.JsonOption());
        var command = new Command(
            "sync",
            "Upload artifacts that are only on this machine, and resume interrupted uploads. For a named artifact, "
                + "also read its content in the account and send missing or damaged content again.\n\nExample:\n  "
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
