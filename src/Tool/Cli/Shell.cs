using System.CommandLine;
using System.CommandLine.Completions;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Numerics;
using System.Runtime.InteropServices;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Cli;

/// <summary>The door between commands and the world: output and faults. Results go to standard output, all else to
/// standard error.</summary>
internal static class Shell
{
    public static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.CamelCase) },
    };

    /// <summary>The same on one line.</summary>
    public static readonly JsonSerializerOptions Lines = new(Json) { WriteIndented = false };

    /// <summary>Progress and messages.</summary>
    public static IAnsiConsole Progress { get; } = TerminalText.Console(TerminalText.Error, Console.IsErrorRedirected);

    /// <summary>Tables asked for.</summary>
    public static IAnsiConsole Output { get; } = TerminalText.Console(TerminalText.Output, Console.IsOutputRedirected);

    public static string Version => RunLauncher.Version;

    public static Option<bool> JsonOption() =>
        new("--json") { Description = "Print the result as JSON on standard output." };

    public static Option<ProgressFormat> ProgressOption() =>
        new("--progress")
        {
            Description =
                "Format of the progress on standard error: auto (a live line on a terminal, plain lines when piped) or "
                + "json (one object a line: time, event, name, text, done, total, step, loss, …; docs/builds.md).",
            HelpName = "auto|json",
            DefaultValueFactory = _ => ProgressFormat.Auto,
        };

    public static Option<string?> BackendOption() =>
        new("--backend")
        {
            Description = "cpu, cuda, or a folder with libtorch.",
            CompletionSources = { "cpu", "cuda" },
        };

    /// <summary>An option that changes a setting.</summary>
    public static Option<string[]> SetOption(string description)
    {
        var option = new Option<string[]>("--set")
        {
            Description = description,
            // Not the names of all settings, which completion offers.
            HelpName = "setting=value",
            AllowMultipleArgumentsPerToken = false,
        };
        option.CompletionSources.Add(_ => Setting.Names.Select(setting => new CompletionItem($"{setting}=")));
        return option;
    }

    /// <summary>A number within bounds.</summary>
    /// <param name="name">Of the option.</param>
    /// <param name="description">What it is for.</param>
    /// <param name="wanted">What it must be, in words.</param>
    /// <param name="allowed">What it must be.</param>
    public static Option<T?> NumberOption<T>(string name, string description, string wanted, Func<T, bool> allowed)
        where T : struct, INumber<T> =>
        new(name) { Description = description, CustomParser = given => Number(given, name, wanted, allowed) };

    /// <summary>The same with a value of its own where it is left out.</summary>
    /// <param name="name">Of the option.</param>
    /// <param name="description">What it is for.</param>
    /// <param name="standard">Where it is left out.</param>
    /// <param name="wanted">What it must be, in words.</param>
    /// <param name="allowed">What it must be.</param>
    public static Option<T> NumberOption<T>(
        string name,
        string description,
        T standard,
        string wanted,
        Func<T, bool> allowed
    )
        where T : struct, INumber<T> =>
        new(name)
        {
            Description = description,
            DefaultValueFactory = _ => standard,
            CustomParser = given => Number(given, name, wanted, allowed) ?? standard,
        };

    private static T? Number<T>(ArgumentResult given, string name, string wanted, Func<T, bool> allowed)
        where T : struct, INumber<T>
    {
        var style = typeof(T) == typeof(double) ? NumberStyles.Float : NumberStyles.AllowLeadingSign;
        if (T.TryParse(given.Tokens[0].Value, style, CultureInfo.InvariantCulture, out var number) && allowed(number))
            return number;
        given.AddError($"{name} must be {wanted}, found \"{given.Tokens[0].Value}\"");
        return null;
    }

    /// <summary>Exit codes: 0 done, 1 failed, 2 bad configuration, data, model or arguments, 130 stopped on
    /// request.</summary>
    public static int Guard(bool json, Func<int> action)
    {
        try
        {
            return action();
        }
        catch (UserFault fault)
        {
            return Report(json, fault);
        }
        catch (QueryException e)
        {
            return Report(
                json,
                new UserFault(
                    e.Message,
                    next: "docs/tracking.md has the language; the simplest filter is \"metrics.loss < 1\""
                )
            );
        }
        catch (TrackingException e)
        {
            return Report(
                json,
                new UserFault(e.Message, next: e.Next ?? "check tracking.store and tracking.artifacts")
                {
                    Failed = e.Failed,
                }
            );
        }
        catch (OperationCanceledException)
        {
            return 130;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return Report(json, new UserFault(e.Message) { Failed = true });
        }
        catch (Exception e) when (Environment.GetEnvironmentVariable("MEMOPT_TRACE") is null)
        {
            var message = e is ExternalException or InvalidOperationException
                ? e.Message.Split('\n')[0]
                : $"{e.GetType().Name}: {e.Message.Split('\n')[0]}";
            return Report(
                json,
                new UserFault(
                    "Something went wrong that should not have.",
                    found: message,
                    next: "run again with MEMOPT_TRACE=1 and report what it prints"
                )
                {
                    Failed = true,
                }
            );
        }
    }

    /// <summary>Sets what a command does; a fault of it becomes a message and an exit code, as
    /// <see cref="Guard"/> has it.</summary>
    public static void SetGuardedAction(this Command command, Option<bool> json, Func<ParseResult, int> action) =>
        command.SetAction(parsed => Guard(parsed.GetValue(json), () => action(parsed)));

    /// <summary>The same for a command that takes its time: <see cref="Interrupt"/> ends it through its
    /// token.</summary>
    public static void SetGuardedAction(
        this Command command,
        Option<bool> json,
        Func<ParseResult, CancellationToken, int> action
    ) => command.SetAction((parsed, stop) => Task.FromResult(Guard(parsed.GetValue(json), () => action(parsed, stop))));

    public static void Print<T>(T value) => Console.Out.WriteLine(JsonSerializer.Serialize(value, Json));

    /// <summary>The exit code of a command that is done: 1 in place of 0 when its result could not be written to
    /// standard output, which standard error then says.</summary>
    public static int Ended(int code)
    {
        if (code != 0 || StandardStream.Output.Fault is not { } why)
            return code;
        Console.Error.WriteLine($"error: The result cannot be written to standard output: {why}");
        return 1;
    }

    public static Option<bool> OfflineOption() =>
        new("--offline") { Description = "Use cached models and contact no server." };

    private static int Report(bool json, UserFault fault)
    {
        var rank = OtherRank.Prefix();
        if (json && rank.Length == 0)
        {
            Print(
                new
                {
                    error = new
                    {
                        message = Secrets.Redact(fault.Message),
                        found = Clean(fault.Found),
                        next = Clean(fault.Next),
                        problems = Clean(fault.Problems),
                    },
                }
            );
        }
        // Not broken into lines of a width: a build reads them.
        Progress.Markup($"[red]{(fault.Problems.Count > 0 ? "problem" : "error")}:[/] ");
        Tell(rank + fault.Message);
        foreach (var problem in fault.Problems.Take(50))
            Tell($"{problem}");
        if (fault.Found is not null && fault.Problems.Count == 0)
            Tell($"  found: {fault.Found}");
        if (fault.Next is not null)
            Tell($"  next:  {fault.Next}");
        return fault.Failed ? 1 : 2;
    }

    /// <summary>A line on standard error without the secrets in it, not broken at a width.</summary>
    public static void Tell(string text) => Console.Error.WriteLine(Secrets.Redact(text));

    /// <summary>Problems without the secrets in their texts, for JSON.</summary>
    public static IEnumerable<Problem> Clean(IEnumerable<Problem> problems) =>
        problems.Select(problem => problem with { Message = Secrets.Redact(problem.Message) });

    private static string? Clean(string? text) => text is null ? null : Secrets.Redact(text);
}
