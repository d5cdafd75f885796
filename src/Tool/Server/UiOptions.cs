using System.Net;
using Memopt.Tracking;

namespace Memopt.Tool.Server;

/// <summary>What a server of runs is given.</summary>
internal sealed record UiOptions
{
    public required LiteRunStore Store { get; init; }
    public required LocalArtifacts Artifacts { get; init; }

    /// <summary>Where it listens. Anything but the loopback needs a <see cref="Token"/>.</summary>
    public required IPAddress Address { get; init; }

    /// <summary>0 takes any that is free.</summary>
    public required int Port { get; init; }

    /// <summary>What a caller must show, or null when everyone on this machine may look.</summary>
    public string? Token { get; init; }
}
