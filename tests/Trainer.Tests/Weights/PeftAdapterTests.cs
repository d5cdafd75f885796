using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Trainer.Adapters;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Tests.Models;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Weights;

/// <summary>Adapters that PEFT 0.21 and others wrote: Golden/*/adapter-end are PEFT's own, with one thing
/// changed.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class PeftAdapterTests : IDisposable
{
    private const string A = "base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight";

    private static readonly ModelSpec spec = ModelSpec.Read(TestBackend.Golden("phi3"));

    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    public PeftAdapterTests()
    {
        foreach (var file in Directory.EnumerateFiles(Path.Combine(TestBackend.Golden("phi3"), "adapter-end")))
            File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
    }

    private string ConfigFile => Path.Combine(folder, "adapter_config.json");

    public void Dispose() => Directory.Delete(folder, recursive: true);

    /// <summary>PEFT 0.21 gives these losses: its keys fit whole names or their ends, so up_proj is not gate_up_proj
    /// and v_proj is not qkv_proj.</summary>
    [Theory]
    [InlineData("", 5.41739)]
    [InlineData("up_proj", 5.41739)]
    [InlineData("v_proj", 5.41739)]
    [InlineData("gate_up_proj", 5.72010)]
    [InlineData(".*up_proj", 5.72010)]
    public void Alpha_pattern_means_what_it_means_in_PEFT(string key, double loss)
    {
        if (key.Length > 0)
            Set("alpha_pattern", new JsonObject { [key] = 64 });
        using var model = GoldenTests.Load("phi3");
        var adapter = AdapterFiles.Load(folder, model);
        int[] ids = [1, 5, 9, 12, 40, 33, 21, 7, 8, 9];
        Assert.Equal(loss, Evaluation.Run(model, [new Row(ids, ids, 1)], 1).Loss, 1e-5);
        // What PEFT passes over in silence is told.
        Assert.Equal(
            key is "up_proj" or "v_proj",
            adapter.Notes.Any(note =>
                note.Contains($"\"{key}\" in alpha_pattern fits no module", StringComparison.Ordinal)
            )
        );
    }

    [Fact]
    public void Rank_pattern_must_be_that_of_the_tensors()
    {
        Set("rank_pattern", new JsonObject { ["o_proj"] = 4 });
        Assert.Contains("o_proj has rank 8, and r with rank_pattern in adapter_config.json gives 4", Refusal().Found);
        Set("rank_pattern", new JsonObject { [".*_proj"] = 8 });
        Set("r", 2);
        Assert.Equal((2, 8), (Read().Config.Rank, Read().Config.RankOf("model.layers.0.self_attn.o_proj")));
    }

    /// <summary>PEFT's layer.py: these take the first A and B out of the base (MiCA keeps B frozen), so A and B alone
    /// mean another model.</summary>
    [Theory]
    [InlineData("\"pissa\"")]
    [InlineData("\"pissa_niter_4\"")]
    [InlineData("\"olora\"")]
    [InlineData("\"OLoRA\"")]
    [InlineData("\"corda\"")]
    [InlineData("\"loftq\"")]
    [InlineData("\"lora_ga\"")]
    [InlineData("\"mica\"")]
    [InlineData("\"something\"")]
    [InlineData("3")]
    public void Initialization_that_changes_the_base_is_refused_by_name(string value)
    {
        Set("init_lora_weights", JsonNode.Parse(value));
        Assert.Contains($"init_lora_weights is {value}", Refusal().Found);
    }

    /// <summary>These leave the base as it was: what they gave A and B is what the file holds.</summary>
    [Theory]
    [InlineData("true")]
    [InlineData("false")]
    [InlineData("null")]
    [InlineData("\"gaussian\"")]
    [InlineData("\"eva\"")]
    [InlineData("\"orthogonal\"")]
    public void Initialization_that_leaves_the_base_alone_is_loaded(string value)
    {
        Set("init_lora_weights", JsonNode.Parse(value));
        Assert.Equal(8, Read().Config.Rank);
    }

    [Theory]
    [InlineData("use_dora", "true")]
    [InlineData("use_qalora", "true")]
    [InlineData("use_bdlora", "{\"nblocks\": 2}")]
    [InlineData("lora_bias", "true")]
    [InlineData("fan_in_fan_out", "true")]
    [InlineData("modules_to_save", "[\"lm_head\"]")]
    [InlineData("layer_replication", "[[0, 2]]")]
    [InlineData("megatron_config", "{\"a\": 1}")]
    [InlineData("trainable_token_indices", "[1]")]
    [InlineData("target_parameters", "[\"experts\"]")]
    [InlineData("alora_invocation_tokens", "[5]")]
    [InlineData("arrow_config", "{\"top_k\": 3}")]
    [InlineData("kasa_config", "{\"a\": 1}")]
    [InlineData("monteclora_config", "{\"num_samples\": 8}")]
    [InlineData("velora_config", "{\"a\": 1}")]
    [InlineData("ensure_weight_tying", "true")]
    [InlineData("peft_type", "\"LOHA\"")]
    [InlineData("task_type", "\"SEQ_CLS\"")]
    [InlineData("a_key_of_tomorrow", "0.5")]
    [InlineData("r", "0")]
    [InlineData("r", "-8")]
    [InlineData("r", "1.5")]
    [InlineData("r", "\"8\"")]
    [InlineData("lora_alpha", "\"16\"")]
    [InlineData("lora_alpha", "[16]")]
    [InlineData("lora_dropout", "2")]
    [InlineData("use_rslora", "1")]
    [InlineData("bias", "\"some\"")]
    [InlineData("base_model_name_or_path", "7")]
    [InlineData("rank_pattern", "[4]")]
    [InlineData("rank_pattern", "{\"o_proj\":null}")]
    [InlineData("alpha_pattern", "{\"o_proj\":\"a\"}")]
    [InlineData("alpha_pattern", "{\"(o_proj\":1}")]
    public void Value_that_is_not_implemented_is_refused_with_its_key(string key, string value)
    {
        Set(key, JsonNode.Parse(value));
        Assert.Contains(
            $"{key} is {value.Replace("\": ", "\":").Replace(", ", ",")}",
            Refusal().Found!.Replace("\": ", "\":").Replace(", ", ",")
        );
    }

    [Theory]
    [InlineData("r")]
    [InlineData("lora_alpha")]
    [InlineData("peft_type")]
    public void Setting_that_is_missing_is_reported(string key)
    {
        Set(key, null);
        Assert.Equal($"{key} is missing: it is null", Refusal().Found);
        Assert.Equal(
            $"{key} is missing: it is null",
            Assert.Throws<UserFault>(() => Memopt.Adapters.Load(folder)).Found
        );
        var config = Config();
        config.Remove(key);
        File.WriteAllText(ConfigFile, config.ToJsonString());
        Assert.Equal($"{key} is missing", Refusal().Found);
    }

    /// <summary>The golden files hold every key that PEFT 0.21 writes.</summary>
    [Fact]
    public void Keys_that_PEFT_writes_are_declared()
    {
        using var strange = JsonDocument.Parse("[{ \"strange\": 1 }]");
        foreach (var (key, _) in Config())
            Assert.DoesNotContain(
                PeftKeys.Problems(new Dictionary<string, JsonElement> { [key] = strange.RootElement }),
                problem => problem.Contains("does not know", StringComparison.Ordinal)
            );
        Assert.Equal(41, Config().Count);
        Assert.Equal(AdapterKind.Lora, Read().Config.Kind);
        Assert.True(Read().Config.Targets.All);
    }

    [Theory]
    [InlineData("")]
    [InlineData("[]")]
    [InlineData("{ \"r\": 8, ")]
    [InlineData("{ \"r\": \"\\ud800\" }")]
    public void Config_file_that_is_no_object_is_refused(string text)
    {
        File.WriteAllText(ConfigFile, text);
        Assert.Contains("adapter_config.json", Refusal().Message);
        File.WriteAllText(ConfigFile, new string('[', 100_000));
        Assert.Contains("adapter_config.json", Refusal().Message);
    }

    [Fact]
    public void Embedding_layers_in_the_file_are_refused_by_name()
    {
        Tensors(tensors =>
        {
            tensors.Add(("base_model.model.model.embed_tokens.weight", zeros(spec.VocabSize, spec.HiddenSize)));
            tensors.Add(("base_model.model.lm_head.weight", zeros(spec.VocabSize, spec.HiddenSize)));
        });
        var fault = Refusal();
        Assert.Contains("holds embedding layers, which is not supported", fault.Message);
        Assert.Contains("embed_tokens.weight", fault.Found);
        Assert.Contains("lm_head.weight", fault.Found);
        Assert.Contains("save_embedding_layers", fault.Next);
    }

    [Theory]
    [InlineData("another shape", "does not fit the model")]
    [InlineData("no second", "does not fit the model")]
    [InlineData("no first", "does not fit the model")]
    [InlineData("another model", "does not fit the model")]
    [InlineData("nothing", "does not fit the model")]
    [InlineData("magnitude", "no LoRA pairs")]
    [InlineData("bias of a pair", "no LoRA pairs")]
    [InlineData("whole numbers", "no LoRA pairs")]
    [InlineData("a bias that is not there", "does not fit the model")]
    public void Tensors_that_do_not_fit_are_refused(string what, string message)
    {
        const string b = "base_model.model.model.layers.0.self_attn.o_proj.lora_B.weight",
            module = "base_model.model.model.layers.0.self_attn.o_proj.";
        Tensors(tensors =>
        {
            void Replace(string key, Tensor? tensor)
            {
                tensors.RemoveAll(pair => pair.Name == key);
                if (tensor is not null)
                    tensors.Add((key, tensor));
            }
            switch (what)
            {
                case "another shape":
                    Replace(A, zeros(8, 3));
                    break;
                case "no second":
                    Replace(b, null);
                    break;
                case "no first":
                    Replace(A, null);
                    break;
                case "another model":
                    tensors.Add(("base_model.model.model.layers.9.self_attn.o_proj.lora_A.weight", zeros(8, 64)));
                    break;
                case "nothing":
                    tensors.Clear();
                    break;
                case "magnitude":
                    tensors.Add((module + "lora_magnitude_vector", zeros(64)));
                    break;
                case "bias of a pair":
                    tensors.Add((module + "lora_B.bias", zeros(64)));
                    break;
                case "whole numbers":
                    Replace(A, zeros([8, 64], int64));
                    break;
                default:
                    tensors.Add((module + "bias", zeros(64)));
                    break;
            }
        });
        Assert.Contains(message, Refusal().Message);
    }

    [Fact]
    public void Numbers_that_are_not_finite_are_refused()
    {
        Tensors(tensors => tensors[tensors.FindIndex(pair => pair.Name == A)].Tensor[0, 0] = double.NaN);
        using var model = GoldenTests.Load("phi3");
        var fault = Assert.Throws<UserFault>(() => AdapterFiles.Load(folder, model));
        Assert.Contains("not finite", fault.Message);
        Assert.Equal(A, fault.Found);
    }

    [Fact]
    public void Pickle_file_is_not_read()
    {
        File.Move(Path.Combine(folder, "adapter_model.safetensors"), Path.Combine(folder, "adapter_model.bin"));
        Assert.Contains("pickle", Refusal().Message);
        // Beside it, safetensors come first, as in PEFT.
        File.Copy(
            Path.Combine(TestBackend.Golden("phi3"), "adapter-end", "adapter_model.safetensors"),
            Path.Combine(folder, "adapter_model.safetensors")
        );
        Assert.Equal(8, Read().Config.Rank);
    }

    /// <summary>Rank 8 with alpha 16 around all linears of the llama fixture but the head, as PEFT wrote it; the config
    /// says rank 16 with alpha 32.</summary>
    [Fact]
    public void Plan_counts_the_adapter_that_it_starts_from()
    {
        var llama = ModelSpec.Read(TestBackend.Golden("llama"));
        var from = Path.Combine(TestBackend.Golden("llama"), "adapter-end");
        var config = RunConfigFile.Default([]);
        config = RunConfigFile.With(
            config,
            config.Settings with
            {
                Adapter = config.Settings.Adapter with { From = from },
            }
        );
        var settled = StartingAdapter.Settle(config, llama);
        Assert.Equal(
            (8, 16.0, true),
            (settled.Settings.Adapter.Rank, settled.Settings.Adapter.Alpha, settled.Settings.Adapter.Targets.All)
        );
        Assert.Equal(from, settled.StartingAdapter);
        // What is recorded is what is trained; settled again it is the same.
        Assert.Equal(8, (int)JsonNode.Parse(settled.Json)!["adapter"]!["rank"]!);
        Assert.Equal(settled.Hash, StartingAdapter.Settle(settled, llama).Hash);
        MemoryPlan Plan(RunConfig of) => MemoryPlan.For(of, llama, new PlanDevice("cpu", null, 4), 24);
        var plain = new RunConfig
        {
            Adapter = new() { Rank = 8, Alpha = 16 },
        };
        Assert.Equal(Plan(plain).Trained, Plan(settled.Settings).Trained);
        Assert.Equal(Plan(plain).PeakBytes, Plan(settled.Settings).PeakBytes);
    }

    [Fact]
    public void Adapter_on_some_modules_gets_their_names_as_targets()
    {
        Tensors(tensors =>
            tensors.RemoveAll(pair =>
                !pair.Name.Contains("qkv_proj", StringComparison.Ordinal)
                && !pair.Name.Contains("layers.1.mlp.down_proj", StringComparison.Ordinal)
            )
        );
        Assert.Equal(["model.layers.1.mlp.down_proj", "qkv_proj"], Read().Config.Targets.Names);
    }

    /// <summary>Patterns, targets and biases come back from a folder as they were trained, with how the base was
    /// kept.</summary>
    [Fact]
    public void Adapter_saved_is_read_as_it_was()
    {
        var settings = new RunConfig
        {
            Model = new() { Source = "org/base", Dtype = DType.Bfloat16 },
            Adapter = new()
            {
                Kind = AdapterKind.Qlora,
                Rank = 4,
                Alpha = 8,
                UseRslora = true,
                Targets = new(["qkv_proj", "o_proj"]),
                RankPattern = new Dictionary<string, int> { [@"layers\.0\..*"] = 2 },
                AlphaPattern = new Dictionary<string, double> { ["o_proj"] = 3 },
            },
            Quantization = new() { Type = QuantType.Fp4, DoubleQuant = false },
        };
        using var model = GoldenTests.Load("phi3");
        var loras = AdapterPass.Attach(model, settings.Adapter, 1);
        AdapterFiles.Save(folder, model, settings);
        using var again = GoldenTests.Load("phi3");
        var adapter = AdapterFiles.Load(folder, again);
        Assert.Equal(
            loras.Select(lora => (lora.Name, lora.Rank, lora.Scale)),
            again
                .Linears()
                .Select(slot => slot.Linear)
                .OfType<LoraLinear>()
                .Select(lora => (lora.Name, lora.Rank, lora.Scale))
        );
        Assert.Equal(BaseForm.Of(settings), adapter.Form);
        Assert.Equal("org/base", adapter.Base.Name);
        // PEFT's own files say nothing of it.
        Assert.Null(PeftAdapter.Read(Path.Combine(TestBackend.Golden("phi3"), "adapter-end"), spec).Form);
    }

    [Fact]
    public void Base_form_is_the_trained_one_unless_another_is_requested()
    {
        var trained = new BaseForm(true, new() { Type = QuantType.Fp4, DoubleQuant = false }, DType.Bfloat16);
        Assert.Equal(trained, BaseForm.Asked(trained, null, unquantized: false, DType.Auto));
        Assert.False(BaseForm.Asked(trained, null, unquantized: true, DType.Auto).Quantized);
        Assert.Equal(
            (QuantType.Nf4, DType.Float32),
            (
                BaseForm.Asked(trained, QuantType.Nf4, unquantized: false, DType.Float32).Quantization.Type,
                BaseForm.Asked(trained, null, false, DType.Float32).Dtype
            )
        );
        Assert.False(BaseForm.Asked(null, null, unquantized: false, DType.Auto).Quantized);
    }

    private PeftAdapter Read() => PeftAdapter.Read(folder, spec);

    private UserFault Refusal()
    {
        var fault = Assert.Throws<UserFault>(() => Read());
        Assert.NotNull(fault.Next);
        return fault;
    }

    private JsonObject Config() => (JsonObject)JsonNode.Parse(File.ReadAllText(ConfigFile))!;

    private void Set(string key, JsonNode? value)
    {
        var config = Config();
        config[key] = value;
        File.WriteAllText(ConfigFile, config.ToJsonString());
    }

    private void Tensors(Action<List<(string Name, Tensor Tensor)>> change)
    {
        using var scope = NewDisposeScope();
        var path = Path.Combine(folder, "adapter_model.safetensors");
        List<(string Name, Tensor Tensor)> tensors;
        using (var file = SafeTensors.Open(path))
            tensors = [.. file.Tensors.Keys.Select(name => (name, file.Read(name)))];
        change(tensors);
        SafeTensors.Write(path, tensors);
    }
}
