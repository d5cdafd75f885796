using System.Text.Json;
using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Optim;
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
/// <param name="WeightOrder">Which order the weights have in the state; checkpoints that do not say it have the
/// first.</param>
/// <param name="Ranks">Ranks among which the state of a stage is divided, a file each.</param>
/// <param name="Stages">The trained weights of each stage of the pipeline; null in checkpoints of one stage that do not
/// say it. The files are those of the first stage, then those of the second, and so on.</param>
internal sealed record CheckpointManifest(
    int Step,
    string RunId,
    string Config,
    IReadOnlyDictionary<string, string> Hashes,
    IReadOnlyDictionary<string, string> Files,
    int? MicroBatch = null,
    int Order = 1,
    int WeightOrder = 1,
    int Ranks = 1,
    IReadOnlyList<IReadOnlyList<UnitRange>>? Stages = null
);

/// <summary>A folder of checkpoints. Each is staged under another name, flushed, and renamed whole; a kill at any
/// instant leaves the one before.</summary>
internal sealed class CheckpointFolder(string folder, int keep)
{
    private const string Manifest = "manifest.json",
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
                var manifest = Read(path);
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
            return Steps().LastOrDefault() is { } path ? Read(path) : null;
        }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException or UserFault)
        {
            return null;
        }
    }

    /// <summary>Begins a checkpoint: makes an empty folder under another name.</summary>
    public void Stage(int step)
    {
        Directory.CreateDirectory(folder);
        foreach (var left in Directory.EnumerateDirectories(folder, ".staged-*"))
            Directory.Delete(left, recursive: true);
        Directory.CreateDirectory(Staged(step));
    }

    /// <summary>Writes the state of a rank into a checkpoint that was begun.</summary>
    /// <param name="step">Of the checkpoint.</param>
    /// <param name="number">Of the file.</param>
    /// <param name="files">Files that hold the state: one for each stage and each rank that divides it.</param>
    /// <param name="state">The rank's part.</param>
    public ArtifactFile WriteState(int step, int number, int files, IReadOnlyList<(string, Tensor)> state)
    {
        var name = StateFile(number, files);
        var path = Path.Combine(Staged(step), name);
        SafeTensors.Write(path, state);
        return new(name, Hash(path), new FileInfo(path).Length);
    }

    /// <summary>Ends a checkpoint whose states are written: writes the manifest, gives the folder its name and removes
    /// the checkpoints beyond the last <c>keep</c>. Returns where it is and which files it has.</summary>
    public (string Path, IReadOnlyList<ArtifactFile> Files) Complete(
        CheckpointManifest manifest,
        IReadOnlyList<ArtifactFile> states
    )
    {
        var final = Path.Combine(folder, $"{Prefix}{manifest.Step:D8}");
        using var staged = new StagedPath(Staged(manifest.Step));
        var about = JsonSerializer.SerializeToUtf8Bytes(manifest, json);
        using (var stream = new FileStream(Path.Combine(staged.Path, Manifest), FileMode.Create))
        {
            stream.Write(about);
            stream.Flush(flushToDisk: true);
        }
        if (Directory.Exists(final)) // a torn one of the same step, passed over on the way in
            Directory.Delete(final, recursive: true);
        staged.MoveTo(final);
        foreach (var old in Steps().Reverse().Skip(keep).ToList())
            Directory.Delete(old, recursive: true);
        return (final, [new(Manifest, Sha256.Of(about), about.Length), .. states]);
    }

    /// <summary>Removes a checkpoint that was begun and not ended.</summary>
    public void Discard(int step) => new StagedPath(Staged(step)).Dispose();

    /// <summary>Copies saved values into tensors of the same names: those of a rank's shard from the files of the ranks
    /// that wrote it, whatever their number and that of their stages, and numbers that every rank has.</summary>
    /// <param name="path">The checkpoint.</param>
    /// <param name="state">The rank's state.</param>
    /// <param name="layout">How the weights are divided now.</param>
    /// <param name="rank">This rank.</param>
    public static void Load(
        string path,
        IReadOnlyList<(string Name, Tensor Tensor)> state,
        ShardLayout layout,
        int rank
    )
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var manifest = Read(path);
        ShardLayout[] stages = manifest.Stages is null
            ? [layout.For(manifest.Ranks)]
            : [.. manifest.Stages.Select(ranges => new ShardLayout(ranges, manifest.Ranks))];
        var (files, found) = (stages.Length * manifest.Ranks, 0L);
        for (var number = 0; number < files; number++)
        {
            var written = stages[number / manifest.Ranks];
            var pieces = layout.Shared(rank, written, number % manifest.Ranks).ToList();
            if (pieces.Count == 0 && number > 0) // the first has the numbers that every rank has
                continue;
            found += pieces.Sum(piece => piece.Length);
            using var file = SafeTensors.Open(Path.Combine(path, StateFile(number, files)));
            foreach (var (name, tensor) in state)
            {
                var sharded = tensor.numel() == layout.ShardSize; // the loss scale is not
                if (
                    !file.Tensors.TryGetValue(name, out var stored)
                    || stored.Shape.Aggregate(1L, (a, b) => a * b) != (sharded ? written.ShardSize : tensor.numel())
                )
                    throw Misfit(path, name);
                if (!sharded)
                    tensor.copy_(file.Read(name));
                foreach (var piece in sharded ? pieces : [])
                {
                    using var inner = NewDisposeScope();
                    tensor.narrow(0, piece.To, piece.Length).copy_(file.Read(name, piece.From, piece.Length));
                }
            }
        }
        if (found != layout.Held(rank))
            throw Misfit(path, $"{found:N0} of {layout.Held(rank):N0} weights");
    }

    /// <summary>Removes every checkpoint.</summary>
    public void Clear()
    {
        if (Directory.Exists(folder))
            Directory.Delete(folder, recursive: true);
    }

    private static UserFault Misfit(string path, string found) =>
        new($"{path} does not fit this run's adapter.", found: found, next: "run again with --from-start");

    private static CheckpointManifest Read(string path) =>
        JsonSerializer.Deserialize<CheckpointManifest>(
            UntrustedFile.ReadAllBytes(Path.Combine(path, Manifest), UntrustedFile.Settings),
            json
        ) switch
        {
            null => throw new JsonException("empty"),
            {
                RunId: not null,
                Config: not null,
                Hashes: not null,
                Files: not null,
                Ranks: > 0 and <= 65536,
                Stages: null or { Count: > 0 and <= 65536 },
            } manifest when manifest.Stages?.All(stage => stage?.All(unit => unit.Count >= 0) == true) != false =>
                manifest,
            _ => throw new JsonException("a part is missing"),
        };

    private static string StateFile(int number, int files) =>
        files == 1 ? "state.safetensors" : $"state-{number + 1:D5}-of-{files:D5}.safetensors";

    private string Staged(int step) => Path.Combine(folder, $".staged-{step:D8}");

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
