namespace Memopt.Trainer.Native;

/// <summary>What the search for libtorch may look at; gathered once at the door, since nothing below reads environment
/// variables.</summary>
/// <param name="Libtorch">MEMOPT_LIBTORCH: a folder that holds libtorch, or null.</param>
/// <param name="Packages">The user's own folders of NuGet packages; no other is loaded from.</param>
/// <param name="Project">Folder whose restored packages come first; its parents are searched too, up to the top of its
/// repository.</param>
/// <param name="Cache">Per-user folder for patched copies.</param>
/// <param name="Python">Full path of Python, or null to leave it out.</param>
internal sealed record BackendEnvironment(
    string? Libtorch,
    IReadOnlyList<string> Packages,
    string Project,
    string Cache,
    string? Python
);
