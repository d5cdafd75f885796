using System.CommandLine;
using System.Runtime.InteropServices;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tool.Views;
using Memopt.Trainer.Native;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary><c>doctor</c>: what was found here and what to do about what is missing.</summary>
internal static class DoctorCommand
{
    /// <summary>The libtorch that is used, or why none is, and the folders that were looked in.</summary>
    private sealed record Finding(Backend? Backend, UserFault? Fault, IReadOnlyList<BackendCandidate> Candidates)
    {
        public IReadOnlyList<string> Warnings => Backend?.Warnings ?? [];
    }

    public static Command Create()
    {
        var (requested, json) = (Shell.BackendOption(), Shell.JsonOption());
        var command = new Command(
            "doctor",
            "Show the copies of libtorch, devices and versions that were found, and the reason for the chosen one."
                + "\n\nExample:\n  dotnet memopt doctor"
        )
        {
            requested,
            json,
        };
        command.SetGuardedAction(json, parsed => Run(parsed.GetValue(requested), parsed.GetValue(json)));
        return command;
    }

    private static int Run(string? requested, bool json)
    {
        var finding = Find(requested);
        var facts = Facts(finding.Backend);
        if (json)
        {
            Print(finding, facts);
            return finding.Backend is null ? 1 : 0;
        }
        Show(facts);
        Show(finding.Candidates);
        foreach (var warning in finding.Warnings)
            Shell.Output.MarkupLineInterpolated($"[yellow]warning:[/] {warning}");
        return finding.Fault is null ? 0 : throw finding.Fault;
    }

    private static Finding Find(string? requested)
    {
        try
        {
            var backend = Backend.Load(requested, ProcessEnvironment.BackendEnvironment());
            return new(backend, null, backend.Candidates);
        }
        catch (UserFault fault)
        {
            return new(null, fault, Backend.Search(requested, ProcessEnvironment.BackendEnvironment()));
        }
    }

    private static Dictionary<string, string> Facts(Backend? backend)
    {
        var facts = new Dictionary<string, string>
        {
            ["memopt"] = Shell.Version,
            ["dotnet"] = RuntimeInformation.FrameworkDescription,
            ["system"] =
                $"{RuntimeInformation.OSDescription}, {RuntimeInformation.ProcessArchitecture}, "
                + $"{Environment.ProcessorCount} threads",
            ["host memory"] = $"{HostMemory.FreeBytes() / 1073741824.0:F1} GiB free",
            ["GPU"] = Cuda.DeviceName() is { } card
                ? $"{card}, compute capability {Cuda.Capability() / 10.0:F1}, "
                    + $"{(Cuda.TotalBytes() ?? 0) / 1073741824.0:F1} GiB, driver for CUDA "
                    + $"{Cuda.DriverVersion() / 1000}.{Cuda.DriverVersion() % 1000 / 10}"
                : "none (no CUDA driver answered)",
            ["kernels"] = Kernels(backend),
            ["libtorch"] = backend is null
                ? "not usable"
                : $"{backend.Kind} {backend.Version ?? "of unknown version"} in {backend.Folder}",
        };
        if (backend is { Patched: true })
            facts["libstdc++"] =
                "older than TorchSharp was built with: its library is loaded from a private copy in "
                + "which the need for GLIBCXX_3.4.32, which nothing in it uses, is marked weak";
        return facts;
    }

    /// <summary>Whether the tool's own kernels will run, and on what.</summary>
    private static string Kernels(Backend? backend) =>
        backend?.Kind != "cuda" ? "none (they need a GPU)"
        : Backend.Compiler is { } compiler
            ? $"compiled for sm_{Cuda.Capability()} on first use by NVRTC {compiler.Version} ({compiler.File})"
        : "libtorch's own: no NVRTC that knows this card was found beside it, so training is slower and takes "
            + "more memory";

    private static void Print(Finding finding, Dictionary<string, string> facts) =>
        Shell.Print(
            new
            {
                ok = finding.Backend is not null,
                facts,
                candidates = finding.Candidates,
                warnings = finding.Warnings,
                fault = finding.Fault?.Message,
                found = finding.Fault?.Found,
                next = finding.Fault?.Next,
            }
        );

    private static void Show(Dictionary<string, string> facts)
    {
        var grid = new Grid().AddColumn().AddColumn();
        foreach (var (name, value) in facts)
            grid.AddRow(name, Markup.Escape(value));
        Shell.Output.Write(grid);
    }

    private static void Show(IReadOnlyList<BackendCandidate> candidates)
    {
        var table = new FittedTable("--json")
            .AddColumn("looked in")
            .AddColumn("folder", breaks: true)
            .AddColumn("")
            .AddColumn("why", breaks: true);
        foreach (var candidate in candidates)
            table.AddRow(
                candidate.Source,
                Markup.Escape(candidate.Folder ?? "–"),
                candidate.Chosen ? "[green]chosen[/]" : "",
                Markup.Escape(candidate.Why)
            );
        Shell.Output.Write(table);
    }
}
