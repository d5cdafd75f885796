using Memopt.Trainer.Models;
using Memopt.Trainer.Tests.Models;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Weights;

/// <summary>Which files of a model's folder count.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class ModelFolderTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    public ModelFolderTests()
    {
        foreach (var name in new[] { "config.json", "generation_config.json", "model.safetensors" })
            File.Copy(Path.Combine(TestBackend.Golden("llama"), name), Path.Combine(folder, name));
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);

    /// <summary>transformers (_get_resolved_checkpoint_files) takes model.safetensors, and the index only where there
    /// is no such file.</summary>
    [Theory]
    [InlineData("an old shard")]
    [InlineData("no shard")]
    public void Index_left_beside_a_whole_file_is_not_read(string left)
    {
        using var scope = NewDisposeScope();
        using (var file = SafeTensors.Open(Path.Combine(folder, "model.safetensors")))
        {
            if (left == "an old shard")
                SafeTensors.Write(
                    Path.Combine(folder, "model-00001-of-00001.safetensors"),
                    [.. file.Tensors.Keys.Select(name => (name, zeros_like(file.Read(name))))]
                );
            File.WriteAllText(
                Path.Combine(folder, "model.safetensors.index.json"),
                $"{{\"weight_map\": {{"
                    + $"{string.Join(", ", file.Tensors.Keys.Select(name => $"\"{name}\": \"model-00001-of-00001.safetensors\""))}}}}}"
            );
        }
        Assert.Equal(["model.safetensors"], WeightStream.Files(folder));
        using var golden = SafeTensors.Open(Path.Combine(TestBackend.Golden("llama"), "golden.safetensors"));
        using var model = GoldenTests.Load(folder);
        GoldenTests.Close(golden.Read("logits"), model.Logits(golden.Read("input_ids")), 1e-4, rows: 18);
    }

    [Fact]
    public void Merged_model_has_the_named_templates_and_no_stale_index()
    {
        File.WriteAllText(
            Path.Combine(folder, "model.safetensors.index.json"),
            "{\"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\"}}"
        );
        File.WriteAllText(Path.Combine(folder, "chat_template.jinja"), "plain");
        Directory.CreateDirectory(Path.Combine(folder, "additional_chat_templates"));
        File.WriteAllText(Path.Combine(folder, "additional_chat_templates", "tool_use.jinja"), "tools");
        var target = Directory.CreateDirectory(Path.Combine(folder, "merged")).FullName;
        using var model = GoldenTests.Load(folder);
        MergedModel.Save(target, folder, model);
        Assert.Equal(
            [
                "additional_chat_templates/tool_use.jinja",
                "chat_template.jinja",
                "config.json",
                "generation_config.json",
                "model.safetensors",
            ],
            Directory
                .EnumerateFiles(target, "*", SearchOption.AllDirectories)
                .Select(file => Path.GetRelativePath(target, file))
                .Order(StringComparer.Ordinal)
        );
    }
}
