using System.CommandLine;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using System.Text.RegularExpressions;
using Memopt.Core;
using Memopt.Trainer.Config;

namespace Memopt.Tool.Cli;

/// <summary>What is wrong with a command line, as one fault with the command that was probably meant.</summary>
internal static partial class CommandLine
{
    /// <summary>A prompt may begin with @, which is no file of further arguments.</summary>
    public static ParserConfiguration Form { get; } = new() { ResponseFileTokenReplacer = null };

    /// <summary>Whether the first argument asks the parser itself for something: [suggest:12], as completion scripts
    /// do.</summary>
    public static bool IsDirective(IReadOnlyList<string> arguments) => arguments is [['[', .., ']'], ..];

    /// <summary>The first thing that is wrong; null when nothing is, or when help or the version is asked
    /// for.</summary>
    public static UserFault? Wrong(ParseResult parsed, IReadOnlyList<string> arguments)
    {
        if (
            IsDirective(arguments)
            || (
                parsed.Action is not null and not ParseErrorAction
                && (parsed.CommandResult.Command.Action is not { } own || parsed.Action != own)
            )
        )
            return null;
        var result = parsed.CommandResult;
        return Group(result, parsed)
            ?? Options(result, arguments)
            ?? Surplus(result, parsed)
            ?? Invalid(parsed)
            ?? Empty(result);
    }

    /// <summary>A group of commands called without one of them, or with one that it has not.</summary>
    private static UserFault? Group(CommandResult result, ParseResult parsed)
    {
        if (result.Command.Subcommands.Count == 0 || parsed.UnmatchedTokens is [['-', ..], ..])
            return null;
        var (verb, names) = (
            Verb(result),
            result.Command.Subcommands.SelectMany(command => command.Aliases.Prepend(command.Name)).ToList()
        );
        if (parsed.UnmatchedTokens is not [var word, ..])
            return new(
                $"{verb} needs a command.",
                next: $"dotnet {verb} --help   ("
                    + $"{string.Join(", ", result.Command.Subcommands.Select(command => command.Name))})"
            );
        var elsewhere = Root(result)
            .Command.Subcommands.Where(group => group.Subcommands.Any(command => command.Name == word))
            .Select(group => $"{group.Name} {word}")
            .ToList();
        return NearestName.Of(word, names) is { } near
                ? new($"{verb} has no command {word}; did you mean {near}?", next: $"dotnet {verb} {near}")
            : elsewhere.Count > 0
                ? new(
                    $"{verb} has no command {word}; there is {string.Join(", ", elsewhere)}.",
                    next: $"dotnet memopt {elsewhere[0]}"
                )
            : new($"{verb} has no command {word}.", next: $"dotnet {verb} --help");
    }

    /// <summary>A word that looks like an option and is none. The parser takes such a word as an argument, or as the
    /// value of the option before it, where there is room for one.
    /// </summary>
    private static UserFault? Options(CommandResult result, IReadOnlyList<string> arguments)
    {
        var options = Known(result).ToList();
        Option? Find(string? name) => options.Find(option => option.Name == name || option.Aliases.Contains(name!));
        for (var at = 0; at < arguments.Count && arguments[at] != "--"; at++)
        {
            if (OptionForm().Match(arguments[at]) is not { Success: true } form)
                continue;
            if (Find(form.Groups["name"].Value) is null)
            {
                var value =
                    form.Groups["value"] is { Success: true } joined ? joined.Value
                    : arguments.ElementAtOrDefault(at + 1) is { } next && !OptionForm().IsMatch(next) ? next
                    : null;
                return Unknown(result, options, form.Groups["name"].Value, value);
            }
            if (Find(arguments.ElementAtOrDefault(at - 1)) is { Arity.MinimumNumberOfValues: > 0 } before)
                return new(
                    $"{before.Name} needs a value, and {arguments[at]} is an option.",
                    next: $"dotnet {Verb(result)} --help"
                );
        }
        return null;
    }

    private static UserFault Unknown(CommandResult result, List<Option> options, string name, string? value)
    {
        var (verb, plain) = (Verb(result), name.TrimStart('-'));
        if (result.Command.Arguments.FirstOrDefault(argument => argument.Name == plain) is { } argument)
            return new(
                $"{verb} has no option {name}: the {plain} is an argument.",
                next: $"dotnet {verb} {Quoted(value ?? argument.Name.ToUpperInvariant())}"
            );
        if (NearestName.Of(name, options.Where(option => !option.Hidden).Select(option => option.Name)) is { } near)
            return new(
                $"{verb} has no option {name}; did you mean {near}?",
                next: $"dotnet {verb} {near}{(value is null ? "" : " " + Quoted(value))}"
            );
        if (options.Exists(option => option.Name == "--set") && Setting.Suggest(plain) is { } setting)
        {
            var assignment = setting.Contains('=') ? setting : $"{setting}={value ?? "VALUE"}";
            return new(
                $"{verb} has no option {name}; settings are changed with --set.",
                next: $"dotnet {verb} --set {Quoted(assignment)}"
            );
        }
        return new(
            $"{verb} has no option {name}.",
            next: $"dotnet {verb} --help"
                + $"{(result.Command.Arguments.Count > 0 ? "   (an argument that begins with - goes behind --)" : "")}"
        );
    }

    /// <summary>More arguments than the command takes.</summary>
    private static UserFault? Surplus(CommandResult result, ParseResult parsed) =>
        parsed.UnmatchedTokens is [var first, ..]
            ? new(
                $"{Verb(result)} takes {(result.Command.Arguments.Count == 0 ? "no" : "fewer")} arguments: \""
                    + $"{first}\" is one too many.",
                next: $"dotnet {Verb(result)} --help"
            )
            : null;

    private static UserFault? Invalid(ParseResult parsed) =>
        parsed.Errors.Count == 0
            ? null
            : new(
                string.Join(
                    " ",
                    parsed
                        .Errors.Select(error => OneLine(error.Message.Split(" as expected type")[0]).TrimEnd('.') + ".")
                        .Distinct()
                ),
                next: $"dotnet {Verb(parsed.CommandResult)} --help"
            );

    /// <summary>A variable that a script has not set becomes an empty argument; taken for one that is absent, it would
    /// mean another thing, or this folder. A filter may be empty: all match.</summary>
    private static UserFault? Empty(CommandResult result)
    {
        var empty = result
            .Children.Where(child =>
                child.Tokens.Any(token => token.Value.Length == 0)
                && child is not OptionResult { Option.Name: "--filter" }
            )
            .Select(child =>
                $"{(child is OptionResult option ? option.Option.Name : ((ArgumentResult)child).Argument.Name)} "
                + "is empty."
            )
            .ToList();
        return empty.Count == 0 ? null : new(string.Join(" ", empty), next: $"dotnet {Verb(result)} --help");
    }

    private static IEnumerable<Option> Known(CommandResult result) =>
        result.Parent is CommandResult above
            ? result.Command.Options.Concat(Known(above).Where(option => option.Recursive))
            : result.Command.Options;

    private static string OneLine(string text) =>
        string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));

    private static CommandResult Root(CommandResult result) =>
        result.Parent is CommandResult above ? Root(above) : result;

    /// <summary>How a command is called, behind dotnet: <c>memopt config check</c>.</summary>
    private static string Verb(CommandResult result) =>
        result.Parent is CommandResult above ? $"{Verb(above)} {result.Command.Name}" : "memopt";

    /// <summary>A word as a shell takes it.</summary>
    private static string Quoted(string word) =>
        word.Length > 0 && word.All(c => char.IsLetterOrDigit(c) || "-_./=:,@+%".Contains(c))
            ? word
            : $"'{word.Replace("'", "'\\''")}'";

    [GeneratedRegex(@"^(?<name>--?[A-Za-z?][\w.-]*)(?:[=:](?<value>.*))?$", RegexOptions.Singleline)]
    private static partial Regex OptionForm();
}
