using Memopt.Tracking;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>A file or a folder of a run.</summary>
/// <param name="Path">From the run's root, with / between folders.</param>
/// <param name="Bytes">Its length; null for a folder.</param>
/// <param name="Artifact">The artifact that a file is in, by hash.</param>
/// <param name="Inner">Its path there.</param>
internal sealed record RunFile(string Path, long? Bytes = null, string Artifact = "", string Inner = "");

/// <summary>The files of runs as MLflow sees them: a tree for each run, whose files can be replaced and removed. Here
/// content is stored by its hash and linked to the run: a file that a client put under its whole path, as an artifact
/// of this one file; what trainings stored, such as adapter, as a folder.
/// </summary>
internal sealed class RunArtifacts(LiteRunStore store, LocalArtifacts artifacts, OpenRuns open)
{
    private const string Scheme = "mlflow-artifacts:/",
        Folder = "artifacts";

    /// <summary>Where a run's files are, as clients know it.</summary>
    public static string Root(string experiment, string run) => Tracking.Run.ArtifactUri(experiment, run);

    /// <summary>The path of a file to the server: the run's root without its scheme, and the file's own.</summary>
    public static string Served(string experiment, string run, string path) =>
        Root(experiment, run)[Scheme.Length..] + "/" + path;

    /// <summary>Takes a served path apart.</summary>
    public (Run Run, string Path) Find(string served)
    {
        var parts = Checked(served).Split('/', 4);
        if (parts.Length < 3 || parts[2] != Folder)
            throw new MlflowFault(
                MlflowFault.Missing,
                $"There is nothing at {served}; files are of runs: experiment/run/{Folder}/path."
            );
        var run = Known(parts[1]);
        return store.Experiments.Of(run.Start.Experiment).Id == parts[0]
            ? (run, parts.Length == 4 ? parts[3] : "")
            : throw new MlflowFault(MlflowFault.Missing, $"Run {parts[1]} is in another experiment than {parts[0]}.");
    }

    public Run Known(string id) =>
        store.GetExact(id) ?? throw new MlflowFault(MlflowFault.Missing, $"Run with id={id} not found");

    /// <summary>What lies in a folder; of a file nothing does.</summary>
    public IReadOnlyList<RunFile> List(Run run, string path)
    {
        var prefix = path.Length == 0 ? "" : path + "/";
        return
        [
            .. Files(run)
                .Where(file => file.Path.StartsWith(prefix, StringComparison.Ordinal))
                .Select(file =>
                    file.Path.IndexOf('/', prefix.Length) is var slash and >= 0 ? new RunFile(file.Path[..slash]) : file
                )
                .DistinctBy(file => file.Path)
                .OrderBy(file => file.Path, StringComparer.Ordinal),
        ];
    }

    public RunFile File(Run run, string path) =>
        Files(run).FirstOrDefault(file => file.Path == path)
        ?? throw new MlflowFault(MlflowFault.Missing, $"Run {run.Start.Id} has no file {path}.");

    /// <summary>A file's content.</summary>
    public Stream Read(RunFile file) => artifacts.Open(file.Artifact, file.Inner);

    /// <summary>A folder for a file on its way in.</summary>
    public string Incoming() => artifacts.Incoming();

    /// <summary>Stores a file that lies somewhere, and links it. No name is a file and a folder at once: nobody could
    /// download both.</summary>
    public void Put(Run run, string path, string file)
    {
        static bool IsIn(string path, string folder) => path.StartsWith(folder + "/", StringComparison.Ordinal);
        var near = run
            .Artifacts.Where(link => link.Name == path || IsIn(link.Name, path) || IsIn(path, link.Name))
            .SelectMany(Files);
        if (near.FirstOrDefault(other => IsIn(other.Path, path) || IsIn(path, other.Path)) is { } clash)
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"Invalid path: '{path}' cannot be beside {clash.Path}: one of them would be a file and a folder."
            );
        var link = artifacts.Put(path, file) with { Path = null };
        open.Write(run.Start.Id, writing => writing.Writer.Link(link));
    }

    /// <summary>Takes a file, a folder's files, or with an empty path all of a run's files back; the content stays
    /// until <c>runs gc</c>.</summary>
    public void Delete(Run run, string path)
    {
        var gone = run
            .Artifacts.Where(link =>
                path.Length == 0 || link.Name == path || link.Name.StartsWith(path + "/", StringComparison.Ordinal)
            )
            .ToList();
        if (gone.Count == 0 && path.Length > 0)
            throw new MlflowFault(MlflowFault.Missing, $"Run {run.Start.Id} has no file {path} that could be removed.");
        open.Write(run.Start.Id, writing => gone.ForEach(link => writing.Writer.Link(new(link.Name, "", 0))));
    }

    /// <summary>The last name of a path.</summary>
    public static string Leaf(string path) => path[(path.LastIndexOf('/') + 1)..];

    /// <summary>A path that leads nowhere but down.</summary>
    public static string Checked(string path)
    {
        if (
            path.Length > 2000
            || path.Contains('\\')
            || path.Any(char.IsControl)
            || path.Split('/')
                .Any(part => part is "" or "." or ".." || System.Text.Encoding.UTF8.GetByteCount(part) > 255)
            || (path.Length > 1 && path[1] == ':')
        )
            throw new MlflowFault(
                MlflowFault.Invalid,
                $"Invalid path: '{path}'. A path is relative, with / between names, and goes down only."
            );
        return path;
    }

    private IEnumerable<RunFile> Files(Run run)
    {
        // Of two under one path the later counts.
        var files = new Dictionary<string, RunFile>();
        foreach (var file in run.Artifacts.SelectMany(Files))
            files[file.Path] = file;
        return files.Values;
    }

    private IEnumerable<RunFile> Files(ArtifactLink link)
    {
        var content = Content(link);
        return content is [var single] && single.Path == Leaf(link.Name)
            ? [new(link.Name, single.Bytes, link.Hash, single.Path)]
            : content.Select(file => new RunFile($"{link.Name}/{file.Path}", file.Bytes, link.Hash, file.Path));
    }

    private IReadOnlyList<ArtifactFile> Content(ArtifactLink link)
    {
        try
        {
            return artifacts.Files(link.Hash);
        }
        catch (TrackingException)
        {
            return []; // elsewhere only, or collected: there is nothing here to show
        }
    }
}
