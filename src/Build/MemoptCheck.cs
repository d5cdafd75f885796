using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using Microsoft.Build.Framework;

namespace Memopt.Build;

/// <summary>Checks a config with <c>memopt config check</c>, and not again while nothing behind it has another size or
/// time: then it costs as much as asking for those. Writes down what a training depends on by content, and keeps the
/// order of times by which MSBuild skips a training that has been made.
/// </summary>
public sealed class MemoptCheck : MemoptTool
{
    private string[] watched = [];
    private DateTime began;

    /// <summary>Path of this config's files in the intermediate folder, without extension: <c>.inputs</c> (what it
    /// depends on, by content), <c>.watch</c> (the files behind it), <c>.checked</c> (how those were when it was
    /// checked), <c>.trained</c> (the inputs of the last training and what it left).</summary>
    [Required]
    public string StampPath { get; set; } = "";

    /// <summary>Where the training's result is to be; when it is not as the training left it, there is none, whatever
    /// the notes say.</summary>
    [Required]
    public string Adapter { get; set; } = "";

    /// <summary>The notes of a config that was refused; empty when it is in order.</summary>
    [Output]
    public string Refused { get; private set; } = "";

    private string Inputs => StampPath + ".inputs";

    private string Checked => StampPath + ".checked";

    private string Trained => StampPath + ".trained";

    public override bool Execute()
    {
        Directory.CreateDirectory(Path.GetDirectoryName(StampPath)!);
        using var one = BuildLock.Acquire(StampPath + ".lock"); // of an IDE's build and a terminal's
        Arguments = [.. Arguments, "--inputs", Inputs, "--watch", StampPath + ".watch"];
        began = DateTime.UtcNow;
        var done = base.Execute() && !Log.HasLoggedErrors;
        if (done)
            Order();
        else
            Refused = StampPath;
        return done;
    }

    protected override bool SkipTaskExecution()
    {
        if (!File.Exists(Inputs) || !File.Exists(Checked))
            return false;
        var lines = File.ReadAllLines(Checked);
        var key = Array.IndexOf(lines, "");
        if (key < 0 || !lines.Take(key).SequenceEqual(Key()))
            return false;
        var problems = Array.IndexOf(lines, "", key + 1);
        if (
            problems < 0
            || lines.Skip(key + 1).Take(problems - key - 1).Any(line => At(line.Split([' '], 3)[2]) != line)
        )
            return false;
        foreach (var line in lines.Skip(problems + 1))
            Report(line);
        Log.LogMessage(MessageImportance.Low, "Nothing behind the config has changed since it was checked.");
        return true;
    }

    protected override int ExecuteTool(string pathToTool, string responseFileCommands, string commandLineCommands)
    {
        File.Delete(Checked);
        var code = base.ExecuteTool(pathToTool, responseFileCommands, commandLineCommands);
        if (code != 0)
            return code;
        watched = File.ReadAllLines(StampPath + ".watch");
        // What was written while it was read may have been read half, and a model that could not be looked at may be
        // there next time: those are looked at again.
        if (
            watched.All(path => Time(path) < began)
            && !Warnings.Any(warning => warning.Contains(": warning MEMOPT0009: "))
        )
            File.WriteAllLines(Checked, [.. Key(), "", .. watched.Select(At), "", .. Warnings]);
        return 0;
    }

    /// <summary>What the check was asked, by which tool.</summary>
    private IEnumerable<string> Key() => [GenerateFullPathToTool(), GenerateCommandLineCommands().Replace('\n', ' ')];

    private static DateTime Time(string path) =>
        path.EndsWith("/", StringComparison.Ordinal)
            ? Directory.GetLastWriteTimeUtc(path)
            : File.GetLastWriteTimeUtc(path);

    /// <summary>A path with its size and time: <c>size ticks path</c>.</summary>
    private static string At(string path) =>
        $"{(File.Exists(path) ? new FileInfo(path).Length : -1)} {Time(path).Ticks} {path}";

    /// <summary>The note of the training newer than the inputs when they are the same, older when not: MSBuild compares
    /// times only.</summary>
    private void Order()
    {
        if (!File.Exists(Trained))
            return;
        var same =
            Directory.Exists(Adapter)
            && File.ReadAllText(Trained) == File.ReadAllText(Inputs) + MemoptTrain.Fingerprint(Adapter);
        var (inputs, trained) = (File.GetLastWriteTimeUtc(Inputs), File.GetLastWriteTimeUtc(Trained));
        if (same && trained <= inputs)
            File.SetLastWriteTimeUtc(Trained, DateTime.UtcNow);
        else if (!same && inputs <= trained)
            File.SetLastWriteTimeUtc(Inputs, DateTime.UtcNow);
    }
}
