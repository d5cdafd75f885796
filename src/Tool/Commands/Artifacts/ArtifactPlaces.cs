using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary>The local artifacts, and the storage account behind them if there is one.</summary>
internal sealed record ArtifactPlaces(LocalArtifacts Local, BlobArtifacts? Remote)
{
    public IArtifactStore All => (IArtifactStore?)Remote ?? Local;

    public BlobArtifacts Account =>
        Remote
        ?? throw new UserFault(
            "No storage account is named.",
            next: "set tracking.artifacts to az://account/container/path, or add --at az://account/container/path"
        );

    /// <summary>The adapters registered among them.</summary>
    public AdapterRegistry Registry => new(Local.Folder, Remote);

    /// <summary>The project's places, or those named.</summary>
    /// <param name="at">A folder of artifacts or a place in a storage account; null for the config's.</param>
    /// <param name="stop">Ends what is asked of the account.</param>
    public static ArtifactPlaces Of(string? at, CancellationToken stop)
    {
        if (at is not null && !BlobLocation.Is(at))
            return new(new LocalArtifacts(at), null);
        var local = CurrentProject.Artifacts((string?)null);
        if (at is not null)
            return new(local, new BlobArtifacts(local, ProcessEnvironment.BlobPlace(at)) { Stop = stop });
        return new(local, CurrentProject.Here() is { } config ? ArtifactStores.Remote(config, stop) : null);
    }

    /// <summary>The hash that begins so, or that of a registered adapter.</summary>
    public string Find(string beginning)
    {
        if (
            beginning.Contains('@')
            || (!beginning.All(char.IsAsciiHexDigitLower) && AdapterRegistry.IsReference(beginning))
        )
        {
            ArtifactStores.TrySync(Registry, beginning.Split('@')[0], text => Shell.Progress.WriteLine(text));
            if (beginning.Contains('@') || Registry.Find(beginning) is not null)
                return Registry.Resolve(beginning).Version.Hash;
        }
        return OneOf(All, beginning, "artifact", "dotnet memopt artifacts ls");
    }

    /// <summary>The one hash that begins so.</summary>
    /// <param name="store">The artifacts.</param>
    /// <param name="beginning">Its first digits.</param>
    /// <param name="kinds">What the text could have named, for the message.</param>
    /// <param name="next">Shows what there is.</param>
    /// <exception cref="UserFault">None or several begin so.</exception>
    public static string OneOf(IArtifactStore store, string beginning, string kinds, string next)
    {
        // All hashes begin with an empty text, such as a variable that is not set makes.
        var found =
            beginning.Length == 0
                ? []
                : store.List().Where(hash => hash.StartsWith(beginning, StringComparison.Ordinal)).ToList();
        return found.Count == 1
            ? found[0]
            : throw new UserFault(
                found.Count == 0
                    ? $"There is no {kinds} {beginning}."
                    : $"{found.Count} artifacts begin with {beginning}.",
                next: next
            );
    }

    /// <summary>A path that the command line gives; an empty one is what a variable that is not set makes.</summary>
    public static string FullPath(string path) =>
        path.Length > 0 ? Path.GetFullPath(path) : throw new UserFault("A path is empty.");
}
