using Memopt.Core;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>A model folder with what was trained in its weights, the adapter added: loads anywhere, with no adapter
/// beside it.</summary>
internal static class MergedModel
{
    /// <summary>Writes the weights in the types of the original files (those trained in fp32 in fp32), a file at a
    /// time, and copies config and tokenizer.</summary>
    /// <param name="folder">Must exist; files in it are replaced.</param>
    /// <param name="source">The base model's folder. Merging starts from its weights, also when the adapter was trained
    /// over 4 bits.</param>
    /// <param name="model">The model with its adapter; its tied head, if any, must not be adapted.</param>
    public static void Save(string folder, string source, Decoder model)
    {
        var loras = model
            .Linears()
            .Select(slot => slot.Linear)
            .OfType<LoraLinear>()
            .ToDictionary(lora => lora.Name + ".weight");
        var biases = model.Linears().Select(slot => slot.Linear.bias).OfType<Parameter>();
        var trained = model
            .Parameters()
            .Where(parameter => parameter.RequiresGrad)
            .Concat(biases)
            .DistinctBy(parameter => parameter.Name)
            .ToDictionary(parameter => parameter.Name);
        if (model.Spec.TieWordEmbeddings && trained.TryGetValue(model.embed_tokens.Name, out var embedding))
            trained["lm_head.weight"] = embedding; // some files hold the tied head beside the embedding it equals
        if (model.Spec.TieWordEmbeddings && loras.ContainsKey("lm_head.weight"))
            throw new UserFault(
                "The head is tied to the embeddings and cannot be merged alone.",
                next: "keep the adapter apart: memopt export without --merge"
            );
        foreach (var name in WeightStream.Files(source))
        {
            using var scope = NewDisposeScope();
            using var file = SafeTensors.Open(Path.Combine(source, name));
            var tensors = new List<(string, Tensor)>();
            foreach (var stored in file.Tensors.Values.OrderBy(stored => stored.From))
            {
                var weight = file.Read(stored.Name);
                if (loras.TryGetValue(stored.Name, out var lora))
                    weight = lora.Merged(weight.to(model.Device)).to(weight.dtype).cpu();
                else if (trained.TryGetValue(stored.Name, out var parameter))
                    weight = parameter
                        .Value.to(parameter.RequiresGrad && model.Type == float32 ? float32 : weight.dtype)
                        .cpu(); // small steps would be rounded away
                tensors.Add((stored.Name, weight));
            }
            SafeTensors.Write(
                Path.Combine(folder, name),
                tensors,
                new Dictionary<string, string> { ["format"] = "pt" }
            );
        }
        foreach (var name in Beside(source))
        {
            var target = Path.Combine(folder, name);
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(Path.Combine(source, name), target, overwrite: true);
        }
    }

    /// <summary>What goes along with the weights, as paths within the folder: its texts and its named chat templates.
    /// An index goes only with the shards that it names.
    /// </summary>
    private static IEnumerable<string> Beside(string source)
    {
        var templates = Path.Combine(source, ModelLayout.Templates);
        var sharded = !File.Exists(Path.Combine(source, ModelLayout.Weights));
        return Directory
            .EnumerateFiles(source)
            .Where(path => Path.GetExtension(path) is ".json" or ".jinja" or ".txt" or ".model")
            .Concat(Directory.Exists(templates) ? Directory.EnumerateFiles(templates, "*.jinja") : [])
            .Select(path => Path.GetRelativePath(source, path))
            .Where(name => sharded || name != ModelLayout.Index);
    }
}
