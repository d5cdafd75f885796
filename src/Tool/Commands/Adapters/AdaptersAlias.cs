using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;

namespace Memopt.Tool.Commands;

/// <summary><c>adapters alias</c>: lets an alias mean a version, or takes it away.</summary>
internal sealed class AdaptersAlias
{
    private readonly Argument<string> adapter = new("adapter")
    {
        Description = "NAME@3, NAME@alias, or NAME for its latest version.",
    };
    private readonly Argument<string> alias = new("alias")
    {
        Description = "The alias, for example production. The registry sets latest and best.",
    };
    private readonly Option<bool> remove = new("--remove") { Description = "Remove the alias." };
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new AdaptersAlias().Declare();

    private Command Declare()
    {
        var command = new Command(
            "alias",
            "Set an alias to a version. adapters show lists the alias's history.\n\n"
                + "Example:\n  dotnet memopt adapters alias word-class@best production"
        )
        {
            adapter,
            alias,
            remove,
            json,
        };
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var places = AdapterPlaces.Here(stop);
        var (reference, called) = (parsed.GetValue(adapter)!, parsed.GetValue(alias)!);
        var name = reference.Split('@')[0];
        var registry = places.Known(name);
        if (parsed.GetValue(remove) && reference != name)
            throw new UserFault(
                "An alias is removed from a name.",
                found: reference,
                next: $"dotnet memopt adapters alias {name} {called} --remove"
            );
        var number = parsed.GetValue(remove) ? (int?)null : registry.Resolve(reference).Version.Number;
        registry.Alias(name, called, number);
        places.Share(name);
        if (parsed.GetValue(json))
            Shell.Print(AdaptersCommand.Brief(registry.Find(name)!));
        else
            Console.Out.WriteLine(
                number is null ? $"{name} has no alias {called} any more" : $"{name}@{called} is version {number}"
            );
        return 0;
    }
}
