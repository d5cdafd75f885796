using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;

namespace Memopt.Tool.Commands;

/// <summary><c>adapters rm</c>: takes a version, or a name with all its versions, off the registry.</summary>
internal sealed class AdaptersRemove
{
    private readonly Argument<string> adapter = new("adapter")
    {
        Description = "NAME@3, or NAME for all its versions.",
    };
    private readonly Option<bool> force = new("--force")
    {
        Description = "Also remove versions that your aliases name.",
    };
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new AdaptersRemove().Declare();

    private Command Declare()
    {
        var command = new Command(
            "rm",
            "Remove a version, or a name with all its versions, from the registry. Content and runs stay.\n\n"
                + "Example:\n  dotnet memopt adapters rm word-class@3"
        )
        {
            adapter,
            force,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var places = AdapterPlaces.Here(stop);
        var reference = parsed.GetValue(adapter)!;
        var name = reference.Split('@', 2)[0];
        var found = places.Need(name);
        var number = Number(reference);
        if (!parsed.GetValue(force))
            RefuseAliased(found, number, reference);
        places.Registry.Remove(name, number);
        places.Share(name);
        var removed = found.Versions.Where(version => number is null || version.Number == number).ToList();
        if (parsed.GetValue(json))
            Shell.Print(new { name, removed = removed.Select(AdaptersCommand.Version) });
        else
            Console.Out.WriteLine(
                $"{reference} is off the registry, {removed.Count} "
                    + $"{(removed.Count == 1 ? "version" : "versions")}; the content stays: dotnet memopt "
                    + "artifacts ls"
            );
        return 0;
    }

    /// <summary>The version's number in NAME@3; null in NAME.</summary>
    private static int? Number(string reference) =>
        reference.Split('@', 2) is not [var name, var version] ? null
        : int.TryParse(version, out var number) ? number
        : throw new UserFault(
            $"{version} is no version's number.",
            next: $"dotnet memopt adapters alias {name} {version} --remove takes the alias away"
        );

    /// <summary>Latest and best are set by themselves; every other alias is somebody's choice.</summary>
    private static void RefuseAliased(RegisteredAdapter found, int? number, string reference)
    {
        var meant = found
            .Aliases.Where(alias =>
                alias.Key is not (RegisteredAdapter.Latest or RegisteredAdapter.Best)
                && (number is null || alias.Value == number)
            )
            .Select(alias => alias.Key)
            .ToList();
        if (meant.Count > 0)
            throw new UserFault(
                $"{reference} is what {string.Join(", ", meant)} means.",
                next: "add --force, or move the alias first: dotnet memopt adapters alias"
            )
            {
                Failed = true,
            };
    }
}
