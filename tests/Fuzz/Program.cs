using System.Globalization;

namespace Memopt.Fuzz;

/// <summary>Fuzzing of every reader of strangers' files; the case that fails is kept.</summary>
internal static class Program
{
    private const string Usage = """
        Fuzzes the readers of the project with inputs that follow from a seed.

          dotnet run --project tests/Fuzz -c Release -- [options]

          --minutes M     How long, over all targets (default 5).
          --seed S        What the inputs follow from (default: the date).
          --target NAME   Only this reader; several times for several.
          --out DIR       Where inputs that fail are kept (default: artifacts/fuzz).
          --replay FILE   Reads one kept input with --target.
          --list          The names of the readers.

        A case fails when it ends by another exception than those for users, crashes, takes over 10 s, grows the process by
        over 1 GB, or writes outside of its folder. Exit code: 0 none failed, 1 some did, 2 bad arguments.
        """;

    private static int Main(string[] args)
    {
        Tracking.DamagedDatabase.OutliveFinalizers(); // as the tool does
        if (args is ["child", ..])
            return Child.Run(args);
        var (minutes, seed, folder, names, replay) = (
            5.0,
            int.Parse($"{DateTime.UtcNow:yyyyMMdd}", CultureInfo.InvariantCulture),
            "",
            new List<string>(),
            ""
        );
        for (var i = 0; i < args.Length; i++)
        {
            string Value() => ++i < args.Length ? args[i] : "";
            switch (args[i])
            {
                case "--minutes"
                    when double.TryParse(Value(), NumberStyles.Float, CultureInfo.InvariantCulture, out minutes):
                    break;
                case "--seed" when int.TryParse(Value(), NumberStyles.None, CultureInfo.InvariantCulture, out seed):
                    break;
                case "--target":
                    names.Add(Value());
                    break;
                case "--out":
                    folder = Value();
                    break;
                case "--replay":
                    replay = Value();
                    break;
                case "--list":
                    Console.WriteLine(string.Join('\n', Targets.All.Select(target => target.Name)));
                    return 0;
                case "--help" or "-h":
                    Console.WriteLine(Usage);
                    return 0;
                default:
                    Console.Error.WriteLine($"{args[i]} is no option, or its value is none.\n{Usage}");
                    return 2;
            }
        }
        var targets = Targets.All.Where(target => names.Count == 0 || names.Contains(target.Name)).ToList();
        if (targets.Count == 0 || names.Except(targets.Select(target => target.Name)).Any())
        {
            Console.Error.WriteLine($"There is no target {string.Join(", ", names)}; --list names them.");
            return 2;
        }
        if (replay.Length > 0)
            return Child.Replay(targets[0], File.ReadAllBytes(replay));
        var monitor = new ChildMonitor(
            folder.Length > 0 ? folder : Path.Combine(Targets.Repository, "artifacts", "fuzz"),
            seed,
            Console.WriteLine
        );
        Console.WriteLine($"seed {seed}, {targets.Count} targets, {minutes} minutes");
        return monitor.Run(targets, TimeSpan.FromMinutes(minutes)) == 0 ? 0 : 1;
    }
}
