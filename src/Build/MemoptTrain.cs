using System;
using System.IO;
using System.Linq;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Build.Framework;

namespace Memopt.Build;

/// <summary>Trains a config with <c>memopt run</c> and writes down from what it was trained and what came of
/// it.</summary>
public sealed class MemoptTrain : MemoptTool
{
    /// <summary>As of <see cref="MemoptCheck"/>.</summary>
    [Required]
    public string StampPath { get; set; } = "";

    /// <summary>As of <see cref="MemoptCheck"/>.</summary>
    [Required]
    public string Adapter { get; set; } = "";

    /// <summary>How the result was judged, in brackets: <c>(loss 0.1034, evaluation loss 0.0913, accuracy 86.3 % of 320
    /// answers)</c>; empty when nothing is known.</summary>
    [Output]
    public string Judged { get; private set; } = "";

    protected override void Progressed(ProgressRecord record)
    {
        if (record is { Event: ProgressRecord.FinishedEvent, Status: "finished", Judged: { } judged })
            Judged = $"({judged})";
    }

    public override bool Execute()
    {
        // Read before, since a check may write them again meanwhile.
        var inputs = File.ReadAllText(StampPath + ".inputs");
        if (!base.Execute())
            return false;
        Directory.CreateDirectory(Path.GetDirectoryName(StampPath)!); // cleaned meanwhile
        using var one = BuildLock.Acquire(StampPath + ".lock");
        File.WriteAllText(StampPath + ".trained", inputs + Fingerprint(Adapter));
        return true;
    }

    /// <summary>What lies in a folder, a line for each file: a hash of its length, its beginning and its end, which for
    /// weights is as good as one of all of it and costs nothing.</summary>
    internal static string Fingerprint(string folder) =>
        !Directory.Exists(folder)
            ? ""
            : string.Concat(
                Directory
                    .EnumerateFiles(folder, "*", SearchOption.AllDirectories)
                    .OrderBy(file => file, StringComparer.Ordinal)
                    .Select(file =>
                    {
                        using var stream = File.OpenRead(file);
                        var ends = new byte[2 * 65536];
                        Fill(0);
                        stream.Position = Math.Max(0, stream.Length - 65536);
                        Fill(65536);
                        using var sha = SHA256.Create();
                        var hash = sha.ComputeHash([.. Encoding.ASCII.GetBytes($"{stream.Length} "), .. ends]);
                        return $"{BitConverter.ToString(hash).Replace("-", "").ToLowerInvariant()} "
                            + $"{file.Substring(folder.Length).TrimStart('/', '\\')}\n";

                        void Fill(int at)
                        {
                            int read,
                                end = at + 65536;
                            while (at < end && (read = stream.Read(ends, at, end - at)) > 0)
                                at += read;
                        }
                    })
            );
}
