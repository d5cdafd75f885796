using System.CommandLine;

namespace Memopt.Tool.Commands;

/// <summary><c>artifacts ls|get|put|verify|sync|rm</c>: what trainings left, here and in a storage account. Its
/// commands stand in this folder.</summary>
internal static class ArtifactsCommand
{
    private const string about = "Its hash, or the start of it; or a registered adapter: NAME@3, NAME@best.";

    public static Command Create() =>
        new(
            "artifacts",
            "Show, fetch, store, check, upload and remove artifacts: adapters and checkpoints by content hash.\n"
                + "\nExample:\n  dotnet memopt artifacts ls\n  dotnet memopt artifacts sync --at "
                + "az://account/container/adapters"
        )
        {
            ArtifactsList.Create(),
            ArtifactsGet.Create(),
            ArtifactsPut.Create(),
            ArtifactsVerify.Create(),
            ArtifactsSync.Create(),
            ArtifactsRemove.Create(),
        };

    public static Option<string?> AtOption() =>
        new("--at") { Description = "A folder of artifacts, or az://account/container/path, instead of the config's." };

    public static Argument<string> ArtifactArgument() => new("artifact") { Description = about };

    public static Argument<string[]> ArtifactsArgument(string otherwise = "") =>
        new("artifacts") { Description = about + otherwise, Arity = ArgumentArity.ZeroOrMore };
}
