using System.CommandLine;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;

namespace Memopt.Tool.Commands;

/// <summary><c>config check</c>: what a build wants to know before anything is trained: every problem of the config at
/// once, a sample of the data, and whether the memory that there will be is enough. Without libtorch and without the
/// weights.
/// </summary>
internal static class ConfigCheck
{
    /// <summary>Rows of each file that are read.</summary>
    private const int Sampled = 100;

    /// <summary>How long a server may take to give a model's config and tokenizer: a build does not wait for a network
    /// that is away.</summary>
    private static readonly TimeSpan patience = TimeSpan.FromSeconds(20);

    public static Command Create()
    {
        var (file, set, json) = (
            ConfigCommand.FileArgument(),
            Shell.SetOption("Change a setting first."),
            Shell.JsonOption()
        );
        var gpu = new Option<string?>("--gpu")
        {
            Description = "The card it is to train on (\"RTX 4090\", 24GiB): a plan that does not fit is a warning.",
        };
        var budget = Shell.NumberOption<double>(
            "--budget",
            "GiB it may take: a plan that does not fit is an error.",
            "a number of GiB above 0",
            number => number is > 0 and < 1e6
        );
        var inputs = new Option<string?>("--inputs")
        {
            Description = "Write what the result depends on to this file, by content; only when that changes it.",
        };
        var watch = new Option<string?>("--watch")
        {
            Description = "Write the files and folders (those with / at the end) behind it to this file.",
        };
        var offline = Shell.OfflineOption();
        var check = new Command(
            "check",
            "Check a config: all its problems at once with line and column, a sample of the data, the memory.\n\n"
                + "Example:\n  dotnet memopt config check memopt.json --gpu \"RTX 4090\"\n  memopt.json is in order: "
                + "11.92 GiB of 24.0 GiB"
        )
        {
            file,
            set,
            gpu,
            budget,
            inputs,
            watch,
            offline,
            json,
        };
        check.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                        {
                            var config = RunConfigFile.Read(parsed.GetValue(file)!, parsed.GetValue(set) ?? []);
                            var (problems, plan) = Look(
                                config,
                                parsed.GetValue(gpu),
                                parsed.GetValue(budget),
                                parsed.GetValue(offline),
                                stop
                            );
                            if (problems.Any(problem => !problem.Warning))
                                throw new UserFault(
                                    $"{config.File} cannot be trained as it is.",
                                    next: "docs/diagnostics.md says more of each code"
                                )
                                {
                                    Problems = problems,
                                };
                            if (parsed.GetValue(inputs) is { } content)
                                Write(content, BuildInputs.Content(config));
                            if (parsed.GetValue(watch) is { } list)
                                Write(list, BuildInputs.Watched(config));
                            if (parsed.GetValue(json))
                            {
                                Shell.Print(
                                    new
                                    {
                                        ok = true,
                                        hash = config.Hash,
                                        peakBytes = plan?.PeakBytes,
                                        problems = Shell.Clean(problems),
                                        config = JsonNode.Parse(Secrets.Redact(config.Json)),
                                    }
                                );
                                return 0;
                            }
                            foreach (var problem in problems)
                                Shell.Tell($"{problem}");
                            Console.Out.WriteLine(
                                $"{config.File} is in order"
                                    + $"{(plan is null ? "" : $": {LedgerTable.Size(plan.PeakBytes)}, {plan.Rung}")}."
                            );
                            return 0;
                        }
                    )
                )
        );
        return check;
    }

    private static (IReadOnlyList<Problem> Problems, MemoryPlan? Plan) Look(
        ProjectConfig config,
        string? card,
        double? budget,
        bool offline,
        CancellationToken stop
    )
    {
        Snapshot model;
        using (var limited = CancellationTokenSource.CreateLinkedTokenSource(stop))
        {
            limited.CancelAfter(patience);
            try
            {
                model = PullCommand.FetchText(
                    ModelSource.Parse(config.Settings.Model.Source, config.Folder),
                    config.Settings.Model.Revision,
                    offline,
                    limited.Token
                );
            }
            catch (Exception e) when (e is UserFault or OperationCanceledException && !stop.IsCancellationRequested)
            {
                var why = e is UserFault fault
                    ? $"{fault.Message} {fault.Found}".TrimEnd()
                    : $"no answer within {patience.TotalSeconds:N0} s";
                return (
                    [
                        RunConfigFile.At(
                            config,
                            "model.source",
                            $"could not be inspected; data and memory checks were skipped: {why}",
                            "MEMOPT0009"
                        ) with
                        {
                            Warning = true,
                        },
                    ],
                    null
                );
            }
        }
        ModelSpec spec;
        try
        {
            spec = ModelSpec.Read(model.Folder);
        }
        catch (UserFault fault)
        {
            return (
                [RunConfigFile.At(config, "model.source", $"{fault.Message} {fault.Found}".TrimEnd(), "MEMOPT0009")],
                null
            );
        }
        try
        {
            config = StartingAdapter.Settle(AdapterSource.Locate(config, offline, (_, _) => { }, stop), spec);
        }
        catch (UserFault fault)
        {
            var whole = RunConfigFile.At(
                config,
                "adapter.from",
                $"{fault.Message} {fault.Found}".TrimEnd(),
                "MEMOPT0005"
            );
            return ([.. fault.Problems.DefaultIfEmpty(whole)], null);
        }
        catch (TrackingException fault)
        {
            var why = $"could not be inspected; data and memory checks were skipped: {fault.Message}";
            return ([RunConfigFile.At(config, "adapter.from", why, "MEMOPT0009") with { Warning = true }], null);
        }
        var problems = Dataset
            .Sample(config, new ChatEncoder(model.Folder, spec.EndOfTurn, stop: stop), Sampled)
            .ToList();
        var (device, where) = Device(config, card, budget);
        if (device is null)
            return (problems, null);
        var length = Batches.Padded(config.Settings.Data.MaxLength);
        var plan = MemoryPlan.For(config.Settings, spec, device, length);
        if (!plan.Fits)
        {
            var fault = PlanCommand.Fault(
                plan,
                Strategies.Of(config.Settings, spec, device, length, 1),
                device,
                where,
                length
            );
            problems.Add(
                RunConfigFile.At(
                    config,
                    "model.source",
                    $"{fault.Message} {fault.Found}; {fault.Next}",
                    "MEMOPT0010"
                ) with
                {
                    Warning = budget is null,
                }
            );
        }
        return (problems, plan);
    }

    /// <summary>What the plan is made for; null when nothing says.</summary>
    private static (PlanDevice?, string) Device(ProjectConfig config, string? card, double? budget)
    {
        var gpu = card is null ? null : Gpus.Find(card);
        var device = gpu is not null ? PlanDevice.Of(gpu, config.Settings.Model.Dtype) : null;
        if ((budget ?? (gpu is null ? config.Settings.Memory.BudgetGiB : null)) is not { } gib)
            return (device, gpu?.Name ?? "");
        return (
            (
                device
                ?? new("cuda", 0, config.Settings.Model.Dtype == DType.Float32 ? 4 : 2)
                {
                    FusedAttention = config.Settings.Model.Dtype != DType.Float32,
                }
            ).Within(gib),
            $"a budget of {gib} GiB"
        );
    }

    private static void Write(string path, string text)
    {
        if (File.Exists(path) && File.ReadAllText(path) == text)
            return;
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(path))!);
        File.WriteAllText(path, text);
    }
}
