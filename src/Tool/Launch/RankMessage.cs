using System.Globalization;

namespace Memopt.Tool.Launch;

/// <summary>The lines between a rank and its launcher.</summary>
internal static class RankMessage
{
    /// <summary>From a rank, first: <c>hello RANK PID</c>.</summary>
    public const string Hello = "hello";

    /// <summary>From a rank, every <see cref="Heartbeat"/>.</summary>
    public const string Alive = "alive";

    /// <summary>From a rank that ends of itself.</summary>
    public const string Leave = "leave";

    /// <summary>To a rank: end after the step.</summary>
    public const string Stop = "stop";

    public static TimeSpan Heartbeat { get; } = TimeSpan.FromMilliseconds(500);

    /// <summary>Rank and process of a first line; null when it is none.</summary>
    public static (int Rank, int Pid)? ReadHello(string? line) =>
        line?.Split(' ') is [Hello, var rank, var pid]
        && int.TryParse(rank, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
        && int.TryParse(pid, NumberStyles.None, CultureInfo.InvariantCulture, out var process)
            ? (number, process)
            : null;
}
