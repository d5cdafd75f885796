using System.CommandLine;
using Memopt.Tool.Cli;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts get</c>: writes an artifact's files into a folder.</summary>
internal static class ArtifactsGet
{
    public static Command Create()
    {
        var artifact = ArtifactsCommand.ArtifactArgument();
        var into = new Option<string>("--out") { Description = "The folder to write the files to.", Required = true };
        var (at, json) = (ArtifactsCommand.AtOption(), Shell.JsonOption());
        var command = new Command(
            "get",
            "Write an artifact's files into a folder and check every hash. Downloads the artifact if it is not "
                + "on this machine.\n\nExample:\n  dotnet memopt artifacts get 3f2a --out adapter"
        )
        {
            artifact,
            into,
            at,
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
            {
                var places = ArtifactPlaces.Of(parsed.GetValue(at), stop);
                var hash = places.Find(parsed.GetValue(artifact)!);
                var folder = ArtifactPlaces.FullPath(parsed.GetValue(into)!);
                places.All.Get(hash, folder);
                if (parsed.GetValue(json))
                    Shell.Print(
                        new
                        {
                            hash,
                            folder,
                            files = places.All.Files(hash),
                        }
                    );
                else
                    Console.Out.WriteLine(folder);
                return 0;
            }
        );
        return command;
    }
}
