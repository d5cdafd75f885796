using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts put</c>: stores a folder or a file by its content.</summary>
internal static class ArtifactsPut
{
    public static Command Create()
    {
        var path = new Argument<string>("path") { Description = "A folder or a file." };
        var (at, json) = (ArtifactsCommand.AtOption(), Shell.JsonOption());
        var command = new Command(
            "put",
            "Store a folder or a file by its content, and upload it to the config's storage account. Equal "
                + "contents are stored once.\n\nExample:\n  dotnet memopt artifacts put .memopt/memopt/adapter\n  3f2a…"
        )
        {
            path,
            at,
            json,
        };
        command.SetGuardedAction(
            json,
            (parsed, stop) =>
            {
                var places = ArtifactPlaces.Of(parsed.GetValue(at), stop);
                var source = ArtifactPlaces.FullPath(parsed.GetValue(path)!);
                if (!File.Exists(source) && !Directory.Exists(source))
                    throw new UserFault("There is nothing to store.", found: $"no file or folder {source}");
                var link = places.Local.Put(Path.GetFileName(source), source);
                var sent = places.Remote?.Push(link.Hash);
                if (parsed.GetValue(json))
                    Shell.Print(
                        new
                        {
                            hash = link.Hash,
                            bytes = link.Bytes,
                            sent,
                        }
                    );
                else
                    Console.Out.WriteLine(link.Hash);
                return 0;
            }
        );
        return command;
    }
}
