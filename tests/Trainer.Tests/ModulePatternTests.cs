using Memopt.Trainer.Config;

namespace Memopt.Trainer.Tests;

public sealed class ModulePatternTests
{
    private static readonly string[] modules =
    [
        "model.layers.0.self_attn.q_proj",
        "model.layers.10.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.0.self_attn.qkv_proj",
        "model.layers.0.mlp.gate_up_proj",
        "lm_head",
    ];

    /// <summary>The modules are those for which Python 3.11 finds <c>re.match(rf"(.*\.)?({key})$",
    /// module)</c>.</summary>
    [Theory]
    [InlineData("q_proj", 0, 1, 2)]
    [InlineData("up_proj")]
    [InlineData("v_proj")]
    [InlineData("gate_up_proj", 4)]
    [InlineData(@"layers\.0\..*q_proj", 0)]
    [InlineData("layers.1.self_attn.q_proj", 2)]
    [InlineData("^model.layers.0.self_attn.q_proj", 0)]
    [InlineData("self_attn")]
    [InlineData(".*", 0, 1, 2, 3, 4, 5)]
    [InlineData("q.proj", 0, 1, 2)]
    [InlineData("e.up_proj")]
    [InlineData("q_proj|v_proj", 0, 1, 2)]
    [InlineData(@"layers\.\d\.self_attn\.(q|k)_proj", 0, 2)]
    [InlineData("(?P<n>q_proj)", 0, 1, 2)]
    [InlineData(@"layers\.(0|1)\..*", 0, 2, 3, 4)]
    [InlineData("Q_PROJ")]
    [InlineData("model.layers.0.self_attn.q_proj$", 0)]
    [InlineData(@"model\.layers\.1\.self_attn\.q_proj", 2)]
    [InlineData("lm_head", 5)]
    [InlineData("a)|(q_proj")]
    public void Key_matches_the_modules_that_it_matches_in_PEFT(string key, params int[] fitting)
    {
        Assert.Null(ModulePattern.Problem(key));
        Assert.Equal(fitting.Select(at => modules[at]), modules.Where(module => ModulePattern.Fits(key, module)));
    }

    [Fact]
    public void Key_that_matches_first_in_the_order_of_the_file_wins()
    {
        var adapter = new AdapterConfig
        {
            Rank = 8,
            RankPattern = new Dictionary<string, int>
            {
                ["self_attn.q_proj"] = 4,
                [@"layers\.1\..*"] = 2,
                ["q_proj"] = 1,
            },
        };
        Assert.Equal([4, 4, 4, 8, 8, 8], modules.Select(adapter.RankOf));
        var other = adapter with
        {
            RankPattern = new Dictionary<string, int> { [@"layers\.1\..*"] = 2, ["self_attn.q_proj"] = 4 },
        };
        Assert.Equal([4, 4, 2, 8, 8, 8], modules.Select(other.RankOf));
        var written = ConfigWriter.Write(new RunConfig { Adapter = other })["adapter"]!["rankPattern"]!.AsObject();
        Assert.Equal([@"layers\.1\..*", "self_attn.q_proj"], written.Select(entry => entry.Key));
    }

    [Theory]
    [InlineData("(q_proj")]
    [InlineData("(?=q)q_proj")]
    [InlineData(@"(q)\1")]
    [InlineData("[a-z-[q]]_proj")]
    [InlineData("q{,3}")]
    [InlineData("")]
    public void Key_that_cannot_be_used_is_reported(string key) => Assert.NotNull(ModulePattern.Problem(key));

    /// <summary>Keys that take a backtracking engine, Python's among them, longer than anybody waits.</summary>
    [Theory]
    [InlineData("(a|a)*(a|a)*(a|a)*x")]
    [InlineData("(.*.*.*.*)*_")]
    [InlineData("((((q+)+)+)+)+!")]
    [InlineData("(((.{1000}){1000}){1000})*")]
    public void Key_made_to_backtrack_costs_no_time(string key)
    {
        var module = "model.layers.0.self_attn." + new string('a', 60);
        if (ModulePattern.Problem(key) is null)
            Assert.False(ModulePattern.Fits(key, module));
        Assert.NotNull(ModulePattern.Problem(new string('(', 100_000)));
    }
}
