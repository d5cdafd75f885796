using System.CommandLine;
using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Trainer.Weights;

namespace Memopt.Tool.Commands;

/// <summary><c>export</c>: an adapter as PEFT's folder, or merged into the base.</summary>
internal static class ExportCommand
{
    public static Command Create()
    {
        var model = new ModelOptions();
        var output = new Option<string>("--out") { Description = "Folder to write.", Required = true };
        var merge = new Option<bool>("--merge") { Description = "Merge the adapter into the base model's weights." };
        var json = Shell.JsonOption();
        var command = new Command(
            "export",
            "Write an adapter, or a model with the merged adapter.\n\nExample:\n  dotnet memopt export "
                + "--merge --model embedded:nano --adapter .memopt/memopt/adapter --out merged"
        )
        {
            output,
            merge,
            json,
        };
        model.AddTo(command);
        command.SetGuardedAction(
            json,
            parsed =>
            {
                var target = Path.GetFullPath(parsed.GetValue(output)!);
                Run(parsed, model, target, parsed.GetValue(merge));
                if (parsed.GetValue(json))
                    Shell.Print(new { folder = target });
                else
                    Console.Out.WriteLine(target);
                return 0;
            }
        );
        return command;
    }

    private static void Run(ParseResult parsed, ModelOptions model, string target, bool merge)
    {
        var source = model.Folder(parsed);
        if (model.AdapterFolder(parsed) is null)
            throw new UserFault("export needs --adapter or --config.", next: "dotnet memopt export --help");
        if (Directory.Exists(target) && Directory.EnumerateFileSystemEntries(target).Any())
            throw new UserFault($"{target} is not empty.", next: "name a new folder with --out");
        var (loaded, settings, adapted) = model.Load(parsed);
        using (loaded)
        {
            using var staged = new StagedPath(target + ".staged");
            staged.CreateFolder();
            if (merge || !adapted)
                MergedModel.Save(staged.Path, source, loaded);
            else
                AdapterFiles.Save(staged.Path, loaded, settings);
            if (Directory.Exists(target))
                Directory.Delete(target);
            staged.MoveTo(target);
        }
    }
}
