using System.CommandLine;
using Memopt.Tracking;

namespace Memopt.Tool.Commands;

/// <summary><c>adapters ls|show|register|alias|rm</c>: adapters by name, version and alias. Its commands stand in this
/// folder.</summary>
internal static class AdaptersCommand
{
    public static Command Create() =>
        new(
            "adapters",
            "List, register, name and remove adapters. A name has versions and aliases, such as production. Options "
                + "for adapters take NAME, NAME@alias and NAME@3.\n\nExample:\n  dotnet memopt adapters ls\n  "
                + "dotnet memopt adapters alias word-class@3 production\n  "
                + "dotnet memopt infer --adapter word-class@production \"…\""
        )
        {
            AdaptersList.Create(),
            AdaptersShow.Create(),
            AdaptersRegister.Create(),
            AdaptersAlias.Create(),
            AdaptersRemove.Create(),
        };

    /// <summary>A name without its versions, for JSON.</summary>
    public static object Brief(RegisteredAdapter adapter) =>
        new
        {
            name = adapter.Name,
            versions = adapter.Versions.Count,
            aliases = adapter.Aliases,
        };

    /// <summary>A version, for JSON.</summary>
    public static object Version(AdapterVersion version) =>
        new
        {
            number = version.Number,
            hash = version.Hash,
            bytes = version.Bytes,
            runId = version.Run,
            created = version.Created,
            metrics = version.Metrics,
            best = version.Best,
            data = version.Data,
        };
}
