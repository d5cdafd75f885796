using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text.RegularExpressions;
using Microsoft.Build.Framework;
using Microsoft.Build.Utilities;

/// <summary>Lays the templates out as they are packed: what they share in each of them, the sample in every format, the
/// version that is packed.</summary>
public class StageTemplates : Task
{
    private static readonly Regex chat = new Regex(
        @"^\{""messages"": \[\{""role"": ""user"", ""content"": ""(?<prompt>.*)""\}, \{""role"": ""assistant"", ""content"": ""(?<answer>.*)""\}\]\}$"
    );

    private static readonly Regex built = new Regex(@"^[/\\](bin|obj|\.memopt)[/\\]");

    /// <summary>The projects that are made of one folder, by kind. What is in their metadata stands in for TEMPLATE_
    /// and its name in capitals; Data is the folder of the sample, Without a symbol that the kind has no use
    /// for.</summary>
    [Required]
    public ITaskItem[] Tunes { get; set; }

    /// <summary>The folder of the templates' sources.</summary>
    [Required]
    public string From { get; set; }

    /// <summary>The folder to lay them out in, made anew.</summary>
    [Required]
    public string To { get; set; }

    /// <summary>The version that the packed templates name.</summary>
    [Required]
    public string Version { get; set; }

    public override bool Execute()
    {
        if (Directory.Exists(To))
            Directory.Delete(To, true);
        foreach (var folder in Directory.GetDirectories(From, "memopt-*"))
            Copy(folder, Path.Combine(To, Path.GetFileName(folder)), text => text);
        foreach (var tune in Tunes)
            Stage(tune, Path.Combine(To, "memopt-" + tune.ItemSpec));
        // An item template's file is called as its user says. What stands for the name has a hyphen: only then is it
        // told from the form that it has in code.
        var item = Path.Combine(To, "memopt-config", "My-Tune.json");
        File.Copy(Path.Combine(From, "tune", "memopt.json"), item);
        foreach (var config in Directory.GetFiles(To, "memopt.json", SearchOption.AllDirectories).Append(item))
            File.Copy(
                Path.Combine(From, "..", "docs", "memopt.schema.json"),
                Path.Combine(Path.GetDirectoryName(config), "memopt.schema.json")
            );
        return true;
    }

    private void Stage(ITaskItem tune, string folder)
    {
        var without = tune.GetMetadata("Without");
        // In all of .template.config such a symbol, and each of its strings, has a line of its own.
        var line = without.Length > 0 ? new Regex($@"(?m)^ *(\{{ ""id"": )?""(symbols/)?{without}[/""].*\n") : null;
        Copy(
            Path.Combine(From, "tune"),
            folder,
            text =>
            {
                text = line == null ? text : line.Replace(text, "");
                foreach (var name in new[] { "Kind", "Name", "Description", "ZhName", "ZhDescription" })
                    text = text.Replace(
                        "TEMPLATE_" + name.ToUpperInvariant(),
                        name == "Kind" ? tune.ItemSpec : tune.GetMetadata(name)
                    );
                return text;
            }
        );
        var data = Path.Combine(From, "data");
        File.Copy(Path.Combine(data, "NOTICE.md"), Path.Combine(folder, "NOTICE.md"));
        Directory.CreateDirectory(Path.Combine(folder, "data"));
        foreach (var file in Directory.GetFiles(Path.Combine(data, tune.GetMetadata("Data")), "*.jsonl"))
        {
            var rows = File.ReadAllLines(file).Select(row => chat.Match(row)).ToList();
            if (rows.Any(row => !row.Success))
                throw new InvalidDataException(file + " has a row that is no chat of one question and its answer");
            var target = Path.Combine(folder, "data", Path.GetFileNameWithoutExtension(file));
            Write(target + ".jsonl", File.ReadAllText(file));
            Write(
                target + ".json",
                "[\n"
                    + string.Join(
                        ",\n",
                        rows.Select(row =>
                            $"  {{ \"instruction\": \"{row.Groups["prompt"]}\", \"output\": \""
                            + $"{row.Groups["answer"]}\" }}"
                        )
                    )
                    + "\n]\n"
            );
            Write(
                target + ".csv",
                "instruction,output\n"
                    + string.Concat(rows.Select(row => $"{Cell(row.Groups["prompt"])},{Cell(row.Groups["answer"])}\n"))
            );
        }
    }

    private void Copy(string from, string to, Func<string, string> change)
    {
        foreach (
            var file in Directory
                .GetFiles(from, "*", SearchOption.AllDirectories)
                .Where(file => !built.IsMatch(file.Substring(from.Length)))
        )
            Write(
                Path.Combine(to, file.Substring(from.Length + 1)),
                change(File.ReadAllText(file).Replace("\r\n", "\n")).Replace("MEMOPT_VERSION", Version)
            );
    }

    private static void Write(string file, string text)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(file));
        File.WriteAllText(file, text.Replace("\r\n", "\n"));
    }

    /// <summary>A text as JSON writes it, as CSV writes it.</summary>
    private static string Cell(Group text) => "\"" + text.Value.Replace("\\\"", "\"\"") + "\"";
}
