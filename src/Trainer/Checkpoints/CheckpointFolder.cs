using System.Text.Json;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Data;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Checkpoints;

/// <summary>What a checkpoint says of itself, written last: where it is, the file exists, or it does not
/// count.</summary>
/// <param name="Step">Optimizer steps made. Data order, schedule and dropout follow from it and the seeds.</param>
/// <param name="RunId">The run it belongs to.</param>
/// <param name="Config">The effective config as JSON without secrets, for comparing pinned settings.</param>
/// <param name="Hashes">sha256 of what was trained on: data and model.</param>
/// <param name="Files">sha256 of the files beside the manifest.</param>
/// <param name="MicroBatch">Sequences computed at once: the order of sums and dropout's masks follow from it, so a
/// resumed run takes the same.</param>
/// <param name="Order">Which order of rows the step is counted in; checkpoints that do not say it have the
/// first.</param>
internal sealed record CheckpointManifest(
    int Step,
    string RunId,
    string Config,
    IReadOnlyDictionary<string, string> Hashes,
    IReadOnlyDictionary<string, string> Files,
    int? MicroBatch = null,
    int Order = 1
);

/// <summary>A folder of checkpoints. Each is staged under another name, flushed, and renamed whole; a kill at any
/// instant leaves the one before.</summary>
internal sealed class CheckpointFolder(string folder, int keep)
{
    private const string State = "state.safetensors",
        Manifest = "manifest.json",
        Prefix = "step-";

    private static readonly JsonSerializerOptions json = new(JsonSerializerDefaults.Web) { WriteIndented = true };

    public string Folder => folder;

    /// <summary>The newest whole checkpoint and, when newer ones were passed over, why.</summary>
    public (CheckpointManifest Manifest, string Path)? Latest(Action<string>? passedOver = null)
    {
        foreach (var path in Steps().Reverse())
        {
            try
            {
                var manifest =
                    JsonSerializer.Deserialize<CheckpointManifest>(
                        UntrustedFile.ReadAllBytes(Path.Combine(path, Manifest), UntrustedFile.Settings),
                        json
                    ) ?? throw new JsonException("empty");
                if (manifest is not { RunId: not null, Config: not null, Hashes: not null, Files: not null })
                    throw new JsonException("a part is missing");
                foreach (var (file, hash) in manifest.Files)
                {
                    if (Hash(Path.Combine(path, file)) != hash)
                        throw new InvalidDataException($"{file} is not what was written");
                }
                return (manifest, path);
            }
            catch (Exception e)
                when (e
                        is IOException
                            or JsonException
                            or InvalidDataException
                            or UnauthorizedAccessException
                            or UserFault
                            or ArgumentException
                )
            {
                passedOver?.Invoke($"checkpoint {path} is not whole ({e.Message}); using the one before");
            }
        }
        return null;
    }

    /// <summary>What the newest checkpoint says of itself, its other files unread; null when none can be
    /// read.</summary>
    public CheckpointManifest? Said()
    {
        try
        {
            return Steps().LastOrDefault() is not { } path
                ? null
                : JsonSerializer.Deserialize<CheckpointManifest>(File.ReadAllBytes(Path.Combine(path, Manifest)), json);
        }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Writes a checkpoint and removes those beyond the last <c>keep</c>. Returns where it is and what is in
    /// it.</summary>
    public (string Path, IReadOnlyList<ArtifactFile> Files) Save(
        int step,
        string runId,
        string config,
        IReadOnlyDictionary<string, string> hashes,
        IReadOnlyList<(string, Tensor)> state,
        int microBatch
    )
    {
        var final = Path.Combine(folder, $"{Prefix}{step:D8}");
        using var staged = new StagedPath(Path.Combine(folder, $".staged-{step:D8}"));
        Directory.CreateDirectory(folder);
        foreach (var left in Directory.EnumerateDirectories(folder, ".staged-*"))
            Directory.Delete(left, recursive: true);
        staged.CreateFolder();
        var stateFile = Path.Combine(staged.Path, State);
        SafeTensors.Write(stateFile, state);
        var manifest = new CheckpointManifest(
            step,
            runId,
            Secrets.Redact(config),
            hashes,
            new Dictionary<string, string> { [State] = Hash(stateFile) },
            microBatch,
            Batches.Order
        );
        var about = JsonSerializer.SerializeToUtf8Bytes(manifest, json);
        using (var stream = new FileStream(Path.Combine(staged.Path, Manifest), FileMode.Create))
        {
            stream.Write(about);
            stream.Flush(flushToDisk: true);
        }
        var bytes = new FileInfo(stateFile).Length;
        if (Directory.Exists(final)) // a torn one of the same step, passed over on the way in
            Directory.Delete(final, recursive: true);
        staged.MoveTo(final);
        foreach (var old in Steps().Reverse().Skip(keep).ToList())
            Directory.Delete(old, recursive: true);
        return (final, [new(Manifest, Sha256.Of(about), about.Length), new(State, manifest.Files[State], bytes)]);
    }

    /// <summary>Copies saved values into tensors of the same names and shapes.</summary>
    public static void Load(string path, IReadOnlyList<(string Name, Tensor Tensor)> state)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var file = SafeTensors.Open(Path.Combine(path, State));
        foreach (var (name, tensor) in state)
        {
            if (!file.Tensors.TryGetValue(name, out var stored) || !stored.Shape.SequenceEqual(tensor.shape))
                throw new UserFault(
                    $"{path} does not fit this run's adapter.",
                    found: name,
                    next: "run again with --from-start"
                );
            tensor.copy_(file.Read(name));
        }
    }

    /// <summary>Removes every checkpoint.</summary>
    public void Clear()
    {
        if (Directory.Exists(folder))
            Directory.Delete(folder, recursive: true);
    }

    private IEnumerable<string> Steps() =>
        Directory.Exists(folder)
            ? Directory.EnumerateDirectories(folder, Prefix + "*").Order(StringComparer.Ordinal)
            : [];

    private static string Hash(string file)
    {
        UntrustedFile.Check(file);
        return Sha256.OfFile(file);
    }
}
