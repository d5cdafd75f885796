using System.Globalization;
using Memopt.Core;
using Memopt.Tool.Server.Mlflow;
using Memopt.Tracking;
using Memopt.Trainer.Data;

namespace Memopt.Fuzz;

/// <summary>Runs cases in a process that may die: <c>child TARGET SEED FROM COUNT FOLDER</c>. Each case's number is
/// told before it runs. The process starts with all its folders (home, temporary files, the current one) in FOLDER.
/// </summary>
internal static class Child
{
    public static int Run(string[] args)
    {
        var target = Targets.All.Single(target => target.Name == args[1]);
        var (seed, from, count, folder) = (Number(args[2]), Number(args[3]), Number(args[4]), args[5]);
        for (var i = from; i < from + count; i++)
        {
            Console.WriteLine($"case {i} {Environment.WorkingSet}");
            var place = Directory.CreateDirectory(Path.Combine(folder, "case")).FullName;
            if (Fault(target, target.Input(seed, i), place) is { } fault)
                Console.WriteLine($"fault {fault}");
            Directory.Delete(place, recursive: true);
            if (Written(folder) is { } written)
            {
                Console.WriteLine($"fault wrote {written}");
                return 1;
            }
        }
        Console.WriteLine("done");
        return 0;
    }

    public static int Replay(Target target, byte[] input)
    {
        var folder = Directory.CreateTempSubdirectory("memopt-fuzz").FullName;
        var place = Directory.CreateDirectory(Path.Combine(folder, "case")).FullName;
        var fault = Fault(target, input, place, Console.Error.WriteLine);
        Directory.Delete(folder, recursive: true);
        Console.WriteLine(fault ?? "in order");
        return fault is null ? 0 : 1;
    }

    /// <summary>What is wrong with how an input ended; null when it was read, or refused as it should be.</summary>
    private static string? Fault(Target target, byte[] input, string place, Action<string>? tell = null)
    {
        try
        {
            target.Read(input, place);
            return null;
        }
        catch (Exception e)
            when (e is UserFault or TrackingException or MlflowFault or RowFault or PairFault
                || e is IOException or UnauthorizedAccessException
            )
        {
            tell?.Invoke($"refused: {e.Message} {(e as UserFault)?.Found}");
            return null;
        }
        catch (Exception e)
        {
            return string.Join(" | ", e.ToString().Split('\n').Take(12).Select(line => line.Trim()));
        }
    }

    /// <summary>What lies beside the case's folder and has no business there.</summary>
    private static string? Written(string folder) =>
        Directory
            .EnumerateFileSystemEntries(folder, "*", SearchOption.AllDirectories)
            .FirstOrDefault(path =>
                Path.GetRelativePath(folder, path).Split('/') is not (["home" or "tmp" or "cwd"] or ["own", ..])
            );

    private static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);
}
