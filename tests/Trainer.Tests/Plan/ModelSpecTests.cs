using Memopt.Core;
using Memopt.Trainer.Config;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;

namespace Memopt.Trainer.Tests.Plan;

public sealed class ModelSpecTests
{
    [Theory, InlineData("llama"), InlineData("qwen2"), InlineData("qwen3"), InlineData("mistral"), InlineData("phi3")]
    public void Tensors_equal_those_of_the_weights_file(string family)
    {
        using var file = SafeTensors.Open(Path.Combine(TestBackend.Golden(family), "model.safetensors"));
        var spec = ModelSpec.Read(TestBackend.Golden(family));
        Assert.Equal(
            file.Tensors.Values.Select(t => $"{t.Name} {string.Join("x", t.Shape)}").Order(),
            spec.Tensors.Select(t => $"{t.Name} {string.Join("x", t.Shape)}").Order()
        );
        Assert.Equal(file.Tensors.Values.Sum(t => t.Shape.Aggregate(1L, (a, b) => a * b)), spec.Parameters);
    }

    // Published counts: the model cards' safetensors parameter totals.
    [Theory]
    [InlineData(
        """{ "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": false, "sliding_window": 131072, "use_sliding_window": false, "max_window_layers": 28 }""",
        7615616512
    )]
    [InlineData(
        """{ "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "rope_theta": 500000.0, "rope_scaling": { "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192 } }""",
        8030261248
    )]
    [InlineData(
        """{ "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "sliding_window": null }""",
        7241732096
    )]
    public void Parameters_equal_the_published_counts(string config, long count) =>
        Assert.Equal(count, Read(config).Parameters);

    [Theory]
    [InlineData("\"model_type\": \"gpt2\"", "gpt2")]
    [InlineData("\"rope_scaling\": { \"type\": \"su\", \"factor\": 2 }", "su")]
    [InlineData("\"rope_scaling\": \"linear\"", "rope_scaling")]
    [InlineData("\"rope_scaling\": { \"type\": \"linear\", \"factor\": 0 }", "factor")]
    [InlineData("\"rope_parameters\": { \"rope_type\": \"yarn\" }", "factor")]
    [InlineData("\"hidden_act\": \"quick_gelu\"", "quick_gelu")]
    [InlineData("\"quantization_config\": { \"bits\": 4 }", "quantization_config")]
    [InlineData("\"num_key_value_heads\": 3", "num_key_value_heads")]
    [InlineData("\"hidden_size\": \"wide\"", "hidden_size")]
    [InlineData("\"rms_norm_eps\": -1", "rms_norm_eps")]
    [InlineData("\"architectures\": [\"LlamaForSequenceClassification\"]", "architectures")]
    [InlineData("\"partial_rotary_factor\": 0.5", "partial_rotary_factor")]
    public void Config_with_an_unknown_setting_is_refused_by_name(string setting, string named)
    {
        var key = setting.Split('"')[1];
        string[] rest =
        [
            "\"model_type\": \"llama\"",
            "\"hidden_size\": 64",
            "\"intermediate_size\": 112",
            "\"num_hidden_layers\": 2",
            "\"num_attention_heads\": 4",
            "\"vocab_size\": 160",
        ];
        var fault = Assert.Throws<UserFault>(() =>
            Read("{" + string.Join(",", rest.Where(line => line.Split('"')[1] != key).Append(setting)) + "}")
        );
        Assert.Contains(named, fault.Message + fault.Found);
    }

    [Theory]
    [InlineData("num_hidden_layers", "10000000", "1 to 1,000")]
    [InlineData("num_hidden_layers", "1000000000", "1 to 1,000")]
    [InlineData("num_hidden_layers", "1e300", "1 to 1,000")]
    [InlineData("num_hidden_layers", "1e999", "must be a number")]
    [InlineData("hidden_size", "1073741824", "131,072")]
    [InlineData("intermediate_size", "2147483647", "1,048,576")]
    [InlineData("num_attention_heads", "2147483647", "4,096")]
    [InlineData("num_key_value_heads", "8192", "4,096")]
    [InlineData("head_dim", "65536", "131,072")]
    [InlineData("vocab_size", "2147483647", "16,777,216")]
    [InlineData("max_position_embeddings", "2147483647", "16,777,216")]
    public void Config_with_an_impossible_size_is_refused_with_its_limit(string key, string value, string limit)
    {
        var fault = Assert.Throws<UserFault>(() =>
            Read("{" + string.Join(",", Sizes(key).Append($"\"{key}\": {value}")) + "}")
        );
        Assert.Contains(fault.Problems, problem => problem.Path == key && problem.Message.Contains(limit));
    }

    [Fact]
    public void Plans_of_the_largest_accepted_sizes_count_without_overflow()
    {
        var spec = Read(
            """
            { "model_type": "llama", "hidden_size": 131072, "intermediate_size": 1048576, "num_hidden_layers": 1000, "num_attention_heads": 1024,
              "head_dim": 128, "vocab_size": 16777216, "max_position_embeddings": 16777216 }
            """
        );
        // 1,000 layers of 4 · 2^34 + 3 · 2^37 weights and two norms; two tables of 2^41; one norm.
        Assert.Equal(
            1_000 * (4 * (1L << 34) + 3 * (1L << 37) + 2 * 131_072) + 2 * (1L << 41) + 131_072,
            spec.Parameters
        );
        foreach (
            var device in (PlanDevice[])
                [new("cpu", 1L << 34, 4), new("cuda", 1L << 37, 2, HostBytes: 1L << 37) { FusedAttention = true }]
        )
        {
            var all = Strategies.Of(new RunConfig(), spec, device, 2048);
            Assert.All(
                all,
                strategy =>
                    Assert.True(
                        strategy is { PeakBytes: > 0, HostBytes: >= 0, Fits: false, MaxSequence: 0 },
                        strategy.ToString()
                    )
            );
            Assert.All(
                MemoryPlan.Ladder(new RunConfig(), spec, device, 1 << 24),
                plan => Assert.All(plan.Rows, row => Assert.True(row.Bytes >= 0, row.ToString()))
            );
        }
    }

    [Fact]
    public void Config_value_as_long_as_the_file_is_quoted_in_part()
    {
        var fault = Assert.Throws<UserFault>(() =>
            Read(
                $$"""{ "model_type": "llama", "quantization_config": [{{string.Join(",", Enumerable.Repeat("1", 1_000_000))}}] }"""
            )
        );
        Assert.Contains("quantization_config", fault.Found);
        Assert.True(fault.Found!.Length < 5_000);
        Assert.All(fault.Problems, problem => Assert.True(problem.Message.Length < 5_000));
    }

    private static IEnumerable<string> Sizes(string but) =>
        (
            (string[])
                [
                    "\"model_type\": \"llama\"",
                    "\"hidden_size\": 64",
                    "\"intermediate_size\": 112",
                    "\"num_hidden_layers\": 2",
                    "\"num_attention_heads\": 4",
                    "\"vocab_size\": 160",
                ]
        ).Where(line => line.Split('"')[1] != but);

    // Values of transformers' modeling_rope_utils for head_dim 16, theta 10000, worked out from its formulas in double
    // precision.
    [Fact]
    public void Rope_types_scale_as_in_their_papers()
    {
        ModelSpec With(string rope) =>
            Read(
                $$"""{ "model_type": "llama", "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 160, "max_position_embeddings": 128, "rope_theta": 10000.0, "rope_scaling": {{rope}} }"""
            );
        var plain = RopeTable.Frequencies(With("null"), 10).InvFreq;
        Assert.Equal(
            [
                1,
                0.31622776601683794,
                0.1,
                0.03162277660168379,
                0.01,
                0.0031622776601683794,
                0.001,
                0.00031622776601683794,
            ],
            plain,
            (a, b) => Math.Abs(a - b) < 1e-15
        );
        Assert.Equal(
            plain.Select(f => f / 4),
            RopeTable.Frequencies(With("""{ "type": "linear", "factor": 4.0 }"""), 10).InvFreq
        );

        // NTK: nothing changes within the trained length; at twice it theta is 10000 · (2·2 − 1)^(16/14).
        var dynamic = With("""{ "type": "dynamic", "factor": 2.0 }""");
        Assert.Equal(plain, RopeTable.Frequencies(dynamic, 100).InvFreq);
        Assert.Equal(
            Math.Pow(10000 * Math.Pow(3, 16.0 / 14), -2.0 / 16),
            RopeTable.Frequencies(dynamic, 256).InvFreq[1],
            12
        );

        // YaRN: fast dimensions are kept, slow ones divided by the factor; attention grows by 0.1 ln(factor) + 1.
        var (yarn, attention) = RopeTable.Frequencies(
            With("""{ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32 }"""),
            10
        );
        Assert.Equal(1.138629436111989, attention, 12);
        Assert.Equal(plain[0], yarn[0], 12);
        Assert.Equal(plain[7] / 4, yarn[7], 12);
    }

    private static ModelSpec Read(string config)
    {
        var file = Path.Combine(Directory.CreateTempSubdirectory("memopt").FullName, "config.json");
        File.WriteAllText(file, config);
        return ModelSpec.Read(file);
    }
}
