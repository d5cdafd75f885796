using System.Security.Cryptography;
using System.Text;
using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;
using static TorchSharp.torch;

namespace Memopt.Trainer.Recipes;

/// <summary>What a run is made of, read before anything is on the device.</summary>
/// <param name="Spec">The model's config.json.</param>
/// <param name="Type">What is computed in.</param>
/// <param name="Rows">Rows to train on.</param>
/// <param name="Eval">Rows to evaluate on, or null.</param>
/// <param name="Longest">Tokens of the longest sequence to train on, padded as a batch is.</param>
/// <param name="LongestEval">The same of the rows to evaluate on; 0 without any.</param>
internal sealed record TrainingInputs(
    ModelSpec Spec,
    ScalarType Type,
    Dataset Rows,
    Dataset? Eval,
    int Longest,
    int LongestEval
)
{
    public static TrainingInputs Read(FineTuneJob job, ModelSpec spec, CancellationToken stop)
    {
        var config = job.Config.Settings;
        job.Observer.Stage(StageNames.Model, $"{spec.ModelType}, {spec.Parameters:N0} parameters, {job.Model}");
        var rows = Read(job, spec, DataRole.Train, stop)!;
        var eval = Read(job, spec, DataRole.Eval, stop);
        if (eval is null && job.Metrics.Count > 0)
            throw new UserFault(
                "A metric needs rows to evaluate on.",
                found: $"{string.Join(", ", job.Metrics.Keys)}, but no data.eval",
                next: "set data.eval or data.evalShare"
            );
        return new(
            spec,
            ModelLoader.ComputeType(config.Model.Dtype, job.Backend),
            rows,
            eval,
            Batches.Padded(config.Data.Packing ? config.Data.MaxLength : rows.Longest),
            eval is null ? 0 : Batches.Padded(eval.Longest)
        );
    }

    /// <summary>sha256 of each by name; reads the weights as a whole, and what says how to compute with them.</summary>
    public IReadOnlyDictionary<string, string> Hashes(FineTuneJob job)
    {
        var hashes = new Dictionary<string, string>
        {
            ["config"] = job.Config.Hash,
            ["data.train"] = Rows.Hash,
            ["model"] = Hash(job.Model, [.. WeightStream.Files(job.Model), ModelLayout.Config]),
        };
        foreach (var (part, hash) in ChatEncoder.Hashes(job.Model))
            hashes[part] = hash;
        if (Eval is not null)
            hashes["data.eval"] = Eval.Hash;
        if (job.Config.StartingAdapter is { } from)
            hashes["adapter.from"] = Hash(from, [PeftAdapter.WeightsFile]);
        return hashes;
    }

    private static Dataset? Read(FineTuneJob job, ModelSpec spec, DataRole role, CancellationToken stop)
    {
        var stage = role == DataRole.Train ? "data" : "evaluation data";
        var reports = new DataReports(
            text => job.Observer.Stage(stage, text),
            (done, total) => job.Observer.Progress("tokenizing, MiB", done >> 20, total >> 20)
        );
        var data = Dataset.Load(
            job.Config,
            new ChatEncoder(job.Model, spec.EndOfTurn, stop: stop),
            role,
            reports,
            stop
        );
        data?.EnsureVocabulary(spec.VocabSize);
        if (data is not null)
            job.Observer.Stage(stage, data.Summary(job.Config.Settings.Data));
        return data;
    }

    /// <summary>Over names and contents.</summary>
    private static string Hash(string folder, IEnumerable<string> files)
    {
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[1 << 20];
        foreach (var file in files)
        {
            sha.AppendData(Encoding.UTF8.GetBytes(file));
            UntrustedFile.Check(Path.Combine(folder, file));
            using var stream = File.OpenRead(Path.Combine(folder, file));
            int count;
            while ((count = stream.Read(buffer)) > 0)
                sha.AppendData(buffer, 0, count);
        }
        return Convert.ToHexStringLower(sha.GetHashAndReset());
    }
}
