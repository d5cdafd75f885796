using System.CommandLine;
using Memopt.Tool.Cli;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts verify</c>: reads all content and says what is missing or was changed.</summary>
internal static class ArtifactsVerify
{
    public static Command Create()
    {
        var artifacts = ArtifactsCommand.ArtifactsArgument(" The default is all.");
        var (at, json) = (ArtifactsCommand.AtOption(), Shell.JsonOption());
        var command = new Command(
            "verify",
            "Read all content here and in the storage account, and report missing and altered content.\n\n"
                + "Example:\n  dotnet memopt artifacts verify\n  4 artifacts checked, 0 problems"
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
                var hashes = parsed.GetValue(artifacts) is { Length: > 0 } named
                    ? named.Select(places.Find).ToList()
                    : places.All.List();
                var problems = hashes
                    .SelectMany(hash => places.All.Verify(hash).Select(problem => new { hash, problem }))
                    .ToList();
                if (parsed.GetValue(json))
                {
                    Shell.Print(new { artifacts = hashes.Count, problems });
                    return problems.Count == 0 ? 0 : 1;
                }
                foreach (var one in problems)
                    Shell.Output.WriteLine($"{one.hash[..12]}  {one.problem}");
                Console.Out.WriteLine($"{hashes.Count} artifacts checked, {problems.Count} problems");
                return problems.Count == 0 ? 0 : 1;
            }
        );
        return command;
    }
}
