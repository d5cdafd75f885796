using Memopt.Core;
using Memopt.Tool.Cli;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Runs;
using Spectre.Console;

namespace Memopt.Tool.Commands;

/// <summary>The registry that a command works on, and where the adapters in it lie.</summary>
/// <param name="Registry">The project's names.</param>
/// <param name="Local">The artifacts of this machine.</param>
/// <param name="Account">The storage account behind them, or null.</param>
/// <param name="Config">The project's config, or null.</param>
internal sealed record AdapterPlaces(
    AdapterRegistry Registry,
    LocalArtifacts Local,
    BlobArtifacts? Account,
    ProjectConfig? Config
)
{
    /// <summary>Those of the project.</summary>
    /// <param name="stop">Ends what is asked of the account.</param>
    public static AdapterPlaces Here(CancellationToken stop)
    {
        var config = CurrentProject.Here();
        var local = CurrentProject.Artifacts((string?)null);
        var account = config is null ? null : ArtifactStores.Remote(config, stop);
        return new(config is null ? new(local.Folder) : ArtifactStores.Registry(config, stop), local, account, config);
    }

    /// <summary>The merged registry of this machine and of the account; this machine's when the account cannot be
    /// reached.</summary>
    public AdapterRegistry Known(string? name = null)
    {
        ArtifactStores.TrySync(Registry, name, text => Shell.Progress.WriteLine(text));
        return Registry;
    }

    public RegisteredAdapter Need(string name) =>
        Known(name).Find(name)
        ?? throw new UserFault($"There is no adapter {name}.", next: "dotnet memopt adapters ls");

    /// <summary>Tells the account what was changed.</summary>
    /// <exception cref="UserFault">The account cannot be reached or refuses.</exception>
    public void Share(string name)
    {
        try
        {
            Registry.Sync(name);
        }
        catch (TrackingException e)
        {
            throw new UserFault(
                $"{e.Message} The registry was changed on this machine only.",
                next: $"{(e.IsTransient ? "" : e.Next + "; then: ")}dotnet memopt artifacts sync",
                inner: e
            )
            {
                Failed = true,
            };
        }
    }
}
