using Memopt.Trainer.Adapters;
using Memopt.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>A model folder with the adapter added into the weights: loads anywhere, with no adapter beside it.</summary>
public static class MergedModel
{
    /// <summary>Writes the merged weights in the types of the original files, one tensor at a time per file, and copies config and tokenizer.</summary>
    /// <param name="folder">Must exist; files in it are replaced.</param>
    /// <param name="source">The base model's folder. Merging starts from its weights, also when the adapter was trained over 4 bits.</param>
    /// <param name="model">The model with its adapter; its tied head, if any, must not be adapted.</param>
    public static void Save(string folder, string source, Decoder model)
    {
        var loras = model.Linears().Select(slot => slot.Linear).OfType<LoraLinear>().ToDictionary(lora => lora.Name + ".weight");
        var biases = model.Linears().Select(slot => slot.Linear.bias).OfType<Parameter>().ToDictionary(bias => bias.Name);
        if (model.Spec.TieWordEmbeddings && loras.ContainsKey("lm_head.weight"))
            throw new UserFault("The head is tied to the embeddings and cannot be merged alone.", next: "keep the adapter apart: memopt export without --merge");
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
                else if (biases.TryGetValue(stored.Name, out var bias))
                    weight = bias.Value.to(weight.dtype).cpu();
                tensors.Add((stored.Name, weight));
            }
            SafeTensors.Write(Path.Combine(folder, name), tensors, new Dictionary<string, string> { ["format"] = "pt" });
        }
        foreach (var path in Directory.EnumerateFiles(source).Where(path => Path.GetExtension(path) is ".json" or ".jinja" or ".txt" or ".model"))
            File.Copy(path, Path.Combine(folder, Path.GetFileName(path)), overwrite: true);
    }
}
