using System.IO.Compression;
using System.Text;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Trainer.Checkpoints;
using Memopt.Trainer.Config;
using Memopt.Trainer.Config.DeepSpeed;
using Memopt.Trainer.Config.Sweeps;
using Memopt.Trainer.Data;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Sources;
using Memopt.Trainer.Weights;

namespace Memopt.Fuzz;

/// <summary>Every reader of the project.</summary>
internal static class Targets
{
    public static string Repository { get; } = Above(AppContext.BaseDirectory);

    public static string Seeds { get; } = Path.Combine(Repository, "tests", "Fuzz", "seeds");

    public static string Packages { get; } =
        Environment.GetEnvironmentVariable("NUGET_PACKAGES")
        ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".nuget", "packages");

    private static readonly string nano = Path.Combine(Repository, "samples", "word-class", "model");

    private static readonly string[] rowKeys =
    [
        "messages",
        "role",
        "content",
        "conversations",
        "from",
        "value",
        "prompt",
        "completion",
        "instruction",
        "input",
        "output",
        "system",
        "text",
        "input_ids",
        "labels",
        "attention_mask",
        "tools",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "chosen",
        "rejected",
        "label",
        "history",
        "weight",
        "type",
    ];

    private static readonly string[] settings =
    [
        "model",
        "source",
        "revision",
        "data",
        "train",
        "eval",
        "evalShare",
        "maxLength",
        "truncate",
        "columns",
        "format",
        "samples",
        "adapter",
        "kind",
        "rank",
        "alpha",
        "targets",
        "rankPattern",
        "alphaPattern",
        "from",
        "quantization",
        "type",
        "epochs",
        "batchSize",
        "learningRate",
        "schedule",
        "warmup",
        "checkpoint",
        "every",
        "keep",
        "tracking",
        "store",
        "experiment",
        "memory",
        "limit",
        "seed",
        "optimizer",
        "steps",
        "$schema",
        "sweep",
        "parameters",
        "method",
        "count",
        "min",
        "max",
        "log",
        "points",
        "config",
        "metric",
    ];

    private static readonly string[] deepSpeedKeys =
    [
        "zero_optimization",
        "stage",
        "offload_optimizer",
        "device",
        "cpu_offload",
        "bf16",
        "fp16",
        "enabled",
        "loss_scale",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
        "optimizer",
        "scheduler",
        "type",
        "params",
        "lr",
        "betas",
        "warmup_max_lr",
        "warmup_num_steps",
        "total_num_steps",
        "tensor_parallel",
        "autotp_size",
    ];

    private static readonly string[] modelKeys =
    [
        "model_type",
        "architectures",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "vocab_size",
        "rope_theta",
        "rope_scaling",
        "rope_type",
        "factor",
        "original_max_position_embeddings",
        "short_factor",
        "long_factor",
        "max_position_embeddings",
        "sliding_window",
        "layer_types",
        "tie_word_embeddings",
        "rms_norm_eps",
        "hidden_act",
        "eos_token_id",
        "bos_token_id",
        "torch_dtype",
        "attention_bias",
        "partial_rotary_factor",
    ];

    private static readonly string[] tokenizerKeys =
    [
        "model",
        "type",
        "vocab",
        "merges",
        "added_tokens",
        "id",
        "content",
        "special",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "Sequence",
        "normalizers",
        "pretokenizers",
        "processors",
        "decoders",
        "pattern",
        "Regex",
        "String",
        "behavior",
        "invert",
        "Split",
        "ByteLevel",
        "Metaspace",
        "replacement",
        "Replace",
        "NFKC",
        "Precompiled",
        "precompiled_charsmap",
        "TemplateProcessing",
        "single",
        "special_tokens",
        "SpecialToken",
        "unk_token",
        "byte_fallback",
        "BPE",
        "Unigram",
        "WordPiece",
        "continuing_subword_prefix",
        "dropout",
    ];

    public static IReadOnlyList<Target> All { get; } =
    [
        Json(
            "config",
            settings,
            (input, folder) => RunConfigFile.Read(Put(folder, "memopt.json", input), [], checkFiles: false),
            "samples/word-class/memopt.json"
        ),
        Json(
            "sweep",
            settings,
            (input, folder) =>
            {
                Put(folder, "memopt.json", "{}"u8.ToArray());
                SweepFile.Read(Put(folder, "sweep.json", input));
            }
        ),
        Json(
            "deepspeed",
            deepSpeedKeys,
            (input, folder) =>
            {
                var file = DeepSpeedFile.Read(Put(folder, "ds.json", input), ranks: 2);
                _ = (file.Alone(), file.Refusals.Count, file.Warnings.Count);
            },
            "tests/Trainer.Tests/DeepSpeed/Files/pretraining-fp16.json",
            "tests/Trainer.Tests/DeepSpeed/Files/trainer-zero3-auto.json"
        ),
        Json(
            "model-config",
            modelKeys,
            (input, folder) =>
            {
                var spec = ModelSpec.Read(Put(folder, "config.json", input));
                _ = spec.Tensors.Count;
            },
            "tests/Trainer.Tests/Golden/llama/config.json",
            "tests/Trainer.Tests/Golden/mistral/config.json",
            "tests/Trainer.Tests/Golden/phi3/config.json",
            "tests/Trainer.Tests/Golden/qwen2/config.json",
            "tests/Trainer.Tests/Golden/qwen3/config.json"
        ),
        Json(
            "tokenizer",
            tokenizerKeys,
            (input, folder) =>
            {
                Put(folder, "tokenizer.json", input);
                var tokenizer = Tokenizer.Load(folder);
                tokenizer.Decode(
                    tokenizer.Encode(
                        "Hello, Wörld! 123  \n\t\ud83d\ude00 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa<s>",
                        addSpecial: true
                    )
                );
            },
            "tests/Text.Tests/Golden/tokenizers/precompiled.json",
            "tests/Text.Tests/Golden/tokenizers/unigram.json",
            "tests/Text.Tests/Golden/tokenizers/wordpiece.json"
        ),
        Json(
            "tokenizer-config",
            [
                .. tokenizerKeys,
                "chat_template",
                "name",
                "template",
                "default",
                "tool_use",
                "bos_token",
                "eos_token",
                "add_bos_token",
                "added_tokens_decoder",
            ],
            (input, folder) =>
            {
                Put(folder, "tokenizer_config.json", input);
                File.Copy(Path.Combine(nano, "tokenizer.json"), Path.Combine(folder, "tokenizer.json"));
                Tokenizer.Load(folder).Encode("Hello");
                if (ChatTemplate.Load(folder) is { } template)
                    Chats(template);
            },
            "samples/word-class/model/tokenizer_config.json"
        ),
        new(
            "template",
            (random, seeds) =>
                random.Next(3) > 0
                    ? Bytes(new Grammar(random).Template())
                    : Mutator.Change(
                        random,
                        seeds,
                        "{{",
                        "}}",
                        "{%",
                        "%}",
                        "|",
                        "('a'*1000000)",
                        ".split(",
                        " in ",
                        " is ",
                        "**"
                    ),
            (input, _) => Chats(ChatTemplate.Parse(Encoding.UTF8.GetString(input))),
            "samples/word-class/model/chat_template.jinja"
        ),
        new(
            "rows-jsonl",
            (random, seeds) =>
                random.Next(2) == 0
                    ? Bytes(new Grammar(random).Object(rowKeys, 6))
                    : Mutator.Change(random, seeds, rowKeys),
            (input, folder) => Rows(Put(folder, "rows.jsonl", input)),
            "tests/Trainer.Tests/Golden/data/alpaca.jsonl"
        ),
        new(
            "rows-json",
            (random, seeds) =>
                random.Next(2) == 0
                    ? Bytes($"[{new Grammar(random).Object(rowKeys, 6)}]")
                    : Mutator.Change(random, seeds, rowKeys),
            (input, folder) => Rows(Put(folder, "rows.json", input)),
            "tests/Trainer.Tests/Golden/data/alpaca.json"
        ),
        With(
            Plain(
                "rows-csv",
                (input, folder) => Rows(Put(folder, "rows.csv", input)),
                "\"",
                "\"\"",
                ",",
                ";",
                "\n",
                "text",
                "prompt,completion\n"
            ),
            "tests/Trainer.Tests/Golden/data/alpaca.csv"
        ),
        With(
            Plain("rows-parquet", (input, folder) => Rows(Put(folder, "rows.parquet", input))),
            "tests/Trainer.Tests/Golden/data/alpaca.parquet",
            "tests/Trainer.Tests/Golden/data/pages2.parquet",
            "tests/Trainer.Tests/Golden/data/tokens.parquet"
        ),
        new(
            "rows-gz",
            Packed,
            (input, folder) => Rows(Put(folder, "rows.jsonl.gz", input)),
            "tests/Trainer.Tests/Golden/data/chats.json.gz"
        ),
        With(
            Plain("rows-zst", (input, folder) => Rows(Put(folder, "rows.csv.zst", input))),
            "tests/Trainer.Tests/Golden/data/alpaca.csv.zst"
        ),
        With(
            Plain("rows-br", (input, folder) => Rows(Put(folder, "rows.jsonl.br", input))),
            "tests/Trainer.Tests/Golden/data/alpaca.jsonl.br"
        ),
        new(
            "safetensors",
            Header,
            (input, folder) =>
            {
                Torch(folder);
                using var file = SafeTensors.Open(Put(folder, "model.safetensors", input));
                WeightStream.Files(folder);
            }
        ),
        Json(
            "weights-index",
            ["metadata", "total_size", "weight_map", "model.layers.0.weight"],
            (input, folder) =>
            {
                ModelFiles.Shards(input);
                Put(folder, "model.safetensors.index.json", input);
                ModelFiles.Missing(folder);
                WeightStream.Files(folder);
            }
        ),
        Json(
            "adapter-config",
            [
                "r",
                "lora_alpha",
                "lora_dropout",
                "bias",
                "peft_type",
                "use_rslora",
                "use_dora",
                "target_modules",
                "rank_pattern",
                "alpha_pattern",
                "modules_to_save",
                "init_lora_weights",
            ],
            (input, folder) =>
            {
                Put(folder, "adapter_config.json", input);
                PeftAdapter.Described(folder);
            }
        ),
        Json(
            "checkpoint",
            ["step", "runId", "config", "hashes", "files", "state.safetensors", "microBatch"],
            (input, folder) =>
            {
                Put(folder, "step-00000001/manifest.json", input);
                new CheckpointFolder(folder, 2).Latest(_ => { });
            }
        ),
        Plain(
            "glob",
            (input, folder) =>
            {
                var text = Encoding.UTF8.GetString(input);
                Glob.Of(text).IsMatch("data/some/rows-00001-of-00002.jsonl" + new string('a', 200));
                DataFiles.Problem(new(text), folder);
            },
            "**",
            "*",
            "?",
            "[",
            "]",
            "[a-",
            "[!",
            "{a,b}",
            "/"
        ),
        Plain(
            "data-card",
            (input, _) => DataCard.Configurations(Encoding.UTF8.GetString(input), "hf:a/b"),
            "---\n",
            "configs:\n",
            "- config_name: x\n",
            "  data_files:\n",
            "&a ",
            "*a",
            "!!int ",
            "? ",
            "<<: ",
            "|",
            ">"
        ),
        Plain(
            "data-splits",
            (input, _) =>
            {
                var files = Encoding.UTF8.GetString(input).Split('\n');
                DataSplits.ByName(files);
                HubDataSet.Parse(files[0]);
                ModelSource.Parse(files[0], "/nowhere");
            },
            "train",
            "-00000-of-00001",
            "/",
            "@",
            "hf:",
            ":",
            "test",
            "#500",
            "https://",
            "az://"
        ),
        Json(
            "hub",
            [
                "sha",
                "type",
                "file",
                "path",
                "lfs",
                "oid",
                "size",
                "Data",
                "Files",
                "Type",
                "blob",
                "Path",
                "Sha256",
                "Size",
            ],
            Hub.Ask
        ),
        Plain("elf", (input, _) => ElfVersionNeed.Loosen(input, "libx.so")),
        Json(
            "project-assets",
            [
                "libraries",
                "packageFolders",
                "libtorch-cpu-linux-x64/2.10.0",
                "libtorch-cuda-13/2.10.0",
                "targets",
                "project",
                "version",
            ],
            (input, folder) =>
            {
                Put(folder, "obj/project.assets.json", input);
                Backend.Search(
                    null,
                    new(null, [Path.Combine(folder, "packages")], folder, Path.Combine(folder, "cache"), Python: null)
                );
            }
        ),
        Plain(
            "token-shard",
            (input, folder) =>
            {
                if (TokenShard.Open(Put(folder, "x.shard", input)) is not { Rows: >= 0 and < 1000 } shard)
                    return;
                shard.Lengths(new int[shard.Rows]);
                for (var row = 0; row < shard.Rows; row++)
                    _ = shard[row];
            }
        ),
        Plain(
            "part-file",
            (input, folder) =>
            {
                var path = Put(folder, "x.part", input);
                PartFile.Stored(path, "etag", Math.Max(0, input.Length - 1000));
                PartFile.Open(path, "etag", 1000, 100).Dispose();
            }
        ),
        .. Stores.All,
    ];

    /// <summary>Loads libtorch, whose types the readers of weights name.</summary>
    private static void Torch(string folder) =>
        Backend.Load("cpu", new(null, [Packages], Repository, Path.Combine(folder, "../own"), Python: null));

    public static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);

    public static string Put(string folder, string name, byte[] content)
    {
        var path = Path.Combine(folder, name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllBytes(path, content);
        return path;
    }

    public static Target Json(string name, string[] keys, Action<byte[], string> read, params string[] more) =>
        new(
            name,
            (random, seeds) =>
                random.Next(3) == 0
                    ? Bytes(new Grammar(random).Object(keys, 5))
                    : Mutator.Change(
                        random,
                        seeds,
                        [.. keys.Select(key => $"\"{key}\":"), .. keys.Select(key => $"\"{key}\"")]
                    ),
            read,
            more
        );

    public static Target Plain(string name, Action<byte[], string> read, params string[] words) =>
        new(name, (random, seeds) => Mutator.Change(random, seeds, words), read);

    public static Target With(Target target, params string[] more) => new(target.Name, target.Make, target.Read, more);

    /// <summary>Text that is damaged and then packed, or packed text that is damaged.</summary>
    private static byte[] Packed(Random random, IReadOnlyList<byte[]> seeds)
    {
        if (random.Next(3) == 0)
            return Mutator.Change(random, seeds);
        using var plain = new GZipStream(new MemoryStream(seeds[0]), CompressionMode.Decompress);
        using var text = new MemoryStream();
        plain.CopyTo(text);
        using var packed = new MemoryStream();
        using (var zip = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true))
        {
            zip.Write(Mutator.Change(random, [text.ToArray()], rowKeys));
            // What is small when packed.
            var zeros = new byte[1 << 20];
            for (var i = random.Next(40) == 0 ? 1500 : 0; i > 0; i--)
                zip.Write(zeros);
        }
        return packed.ToArray();
    }

    /// <summary>A header of safetensors, with the length that belongs to it as a rule.</summary>
    private static byte[] Header(Random random, IReadOnlyList<byte[]> seeds)
    {
        if (random.Next(4) == 0)
            return Mutator.Change(random, seeds);
        var header =
            random.Next(2) == 0
                ? Bytes(
                    new Grammar(random).Object([
                        "a.weight",
                        "b",
                        "__metadata__",
                        "dtype",
                        "shape",
                        "data_offsets",
                        "F32",
                        "BF16",
                        "format",
                        "pt",
                    ])
                )
                : Mutator.Change(
                    random,
                    [seeds[0][8..]],
                    "\"dtype\":\"F16\"",
                    "\"shape\":[1,2]",
                    "\"data_offsets\":[0,8]"
                );
        return [.. BitConverter.GetBytes((long)header.Length), .. header, .. new byte[random.Next(64)]];
    }

    private static void Chats(ChatTemplate template)
    {
        JsonObject Message(string role, string content) => new() { ["role"] = role, ["content"] = content };
        List<JsonObject> chat =
        [
            Message("system", "s"),
            Message("user", "Hi <b>\n"),
            Message("assistant", "\u00c4 yes"),
            Message("user", "q"),
            Message("assistant", "no"),
        ];
        var tools = new JsonObject
        {
            ["tools"] = new JsonArray(
                new JsonObject
                {
                    ["name"] = "f",
                    ["parameters"] = new JsonObject { ["n"] = 1.5 },
                }
            ),
        };
        template.Render(chat, addGenerationPrompt: true, tools);
        AssistantMask.Of(template, template.RenderMarked(chat, false), chat, null);
    }

    private static void Rows(string file)
    {
        var tokenizer = loaded.Value;
        Dataset.Load(
            file,
            () => tokenizer,
            () => ChatTemplate.Load(nano),
            new() { MaxLength = 64 },
            new HashSet<int> { tokenizer.Id("<|im_end|>")!.Value }
        );
    }

    private static readonly Lazy<Tokenizer> loaded = new(() => Tokenizer.Load(nano));

    private static string Above(string folder)
    {
        while (!File.Exists(Path.Combine(folder, "Tool.sln")))
            folder = Path.GetDirectoryName(folder) ?? throw new InvalidOperationException("not in the repository");
        return folder;
    }
}
