using Memopt.Trainer.Adapters;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Optim;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Gpu;

/// <summary>The nano model's steps on the GPU in 16 bits: packing, recomputation, repetition, and against
/// fp32.</summary>
[Trait(Gpu.Trait, Gpu.Name)]
[Collection(ExclusiveCollection.Name)]
public sealed class DecoderTests
{
    private static readonly List<Row> rows =
    [
        .. new[] { 40, 3, 100, 17, 64, 31, 80, 5 }.Select(
            (length, n) =>
                new Row(
                    [.. Enumerable.Range(0, length).Select(i => (i * 37 + n * 101) % 4000)],
                    [.. Enumerable.Range(0, length).Select(i => i < 2 ? -100 : (i * 37 + n * 101) % 4000)],
                    n
                )
        ),
    ];

    [
        GpuTheory,
        InlineData(AdapterKind.Lora, "BFloat16"),
        InlineData(AdapterKind.Qlora, "BFloat16"),
        InlineData(AdapterKind.Lora, "Float16")
    ]
    public void Packed_rows_have_the_losses_that_they_have_alone(AdapterKind kind, string typeName)
    {
        var type = Enum.Parse<ScalarType>(typeName);
        var alone = Enumerable
            .Range(0, rows.Count)
            .Select(i =>
                Batches.Collate(
                    rows,
                    [
                        [i],
                    ],
                    packed: false
                )
            )
            .ToArray();
        var packed = Batches.Collate(
            rows,
            [
                [0, 1, 2],
                [3, 4, 5, 6, 7],
            ],
            packed: true
        );
        var (one, other) = (
            Steps(kind, type, [alone], 1),
            Steps(
                kind,
                type,
                [
                    [packed],
                ],
                1
            )
        );
        Assert.Equal(one.Losses[0], other.Losses[0], one.Losses[0] * 2e-3);
        Assert.True(((one.B - other.B).norm() / one.B.norm()).item<float>() < 3e-2);
    }

    [
        GpuTheory,
        InlineData(AdapterKind.Lora, 0),
        InlineData(AdapterKind.Qlora, 0),
        InlineData(AdapterKind.Qlora, 0.1),
        InlineData(AdapterKind.None, 0)
    ]
    public void Training_steps_with_or_without_recomputation_and_repeated_give_the_same_bits(
        AdapterKind kind,
        double dropout
    )
    {
        MicroBatch[][] batches =
        [
            [
                Batches.Collate(
                    rows,
                    [
                        [0],
                        [2],
                        [6],
                    ],
                    packed: false
                ),
            ],
            [
                Batches.Collate(
                    rows,
                    [
                        [1, 4],
                        [7, 5],
                    ],
                    packed: true
                ),
            ],
        ];
        var kept = Steps(kind, ScalarType.BFloat16, batches, 6, dropout);
        foreach (
            var recompute in new SavedForBackward?[]
            {
                null,
                SavedForBackward.Nothing,
                SavedForBackward.Attention,
                SavedForBackward.Residual,
                SavedForBackward.Both,
            }
        )
        {
            var other = Steps(kind, ScalarType.BFloat16, batches, 6, dropout, recompute);
            Assert.Equal(kept.Losses, other.Losses);
            Assert.True(kept.B.Equals(other.B));
        }
    }

    [
        GpuTheory,
        InlineData(AdapterKind.Lora, "BFloat16"),
        InlineData(AdapterKind.Qlora, "BFloat16"),
        InlineData(AdapterKind.Lora, "Float32"),
        InlineData(AdapterKind.None, "BFloat16"),
        InlineData(AdapterKind.None, "Float32")
    ]
    public void Training_steps_with_any_offload_give_the_same_bits(AdapterKind kind, string typeName)
    {
        var type = Enum.Parse<ScalarType>(typeName);
        MicroBatch[][] batches =
        [
            [
                Batches.Collate(
                    rows,
                    [
                        [0],
                        [2],
                        [6],
                    ],
                    packed: false
                ),
            ],
            [
                Batches.Collate(
                    rows,
                    [
                        [1, 4],
                        [7, 5],
                    ],
                    packed: true
                ),
            ],
        ];
        var plain = Steps(kind, type, batches, 6, rank: 8);
        var fused = type != ScalarType.Float32;
        Rung[] rungs =
        [
            new(1, true, fused ? SavedForBackward.Both : SavedForBackward.Nothing, OffloadActivations: true),
            new(1, true, SavedForBackward.Nothing, OffloadActivations: true),
            new(1, OffloadOptimizer: true),
            .. kind == AdapterKind.None
                ? Array.Empty<Rung>()
                :
                [
                    new(1, StreamLayers: 3),
                    new(1, StreamLayers: 8),
                    new(1, true, fused ? SavedForBackward.Both : SavedForBackward.Nothing, true, true, 8),
                    new(1, StreamLayers: 1),
                ],
        ];
        foreach (var rung in rungs)
        {
            foreach (var late in new[] { false, true })
            {
                foreach (var spill in rung.StreamLayers > 0 ? new[] { false, true } : [false])
                {
                    var other = Steps(kind, type, batches, 6, rank: 8, rung: rung, late: late, spill: spill);
                    Assert.Equal(plain.Losses, other.Losses);
                    Assert.True(
                        plain.B.Equals(other.B) && plain.Mean.Equals(other.Mean),
                        $"{rung} {(late ? "after two steps" : "from the start")} {(spill ? "from a file" : "")}"
                    );
                }
            }
        }
    }

    [GpuTheory]
    [
        InlineData(AdapterKind.Lora, "BFloat16", 16),
        InlineData(AdapterKind.Lora, "Float16", 32),
        InlineData(AdapterKind.Lora, "BFloat16", 8),
        InlineData(AdapterKind.None, "BFloat16", 0),
        InlineData(AdapterKind.None, "Float16", 0)
    ]
    public void Gradients_in_sixteen_bits_are_those_of_fp32(AdapterKind kind, string typeName, int rank)
    {
        var type = Enum.Parse<ScalarType>(typeName);
        MicroBatch[][] batches =
        [
            [
                Batches.Collate(
                    rows,
                    [
                        [0],
                        [2],
                        [6],
                    ],
                    packed: false
                ),
                Batches.Collate(
                    rows,
                    [
                        [4],
                        [3],
                    ],
                    packed: false
                ),
            ],
        ];
        // Two steps, so that both factors of a LoRA pair have had a gradient; the mean of the gradients is what is
        // compared.
        var (narrow, wide) = (
            Steps(kind, type, batches, 2, rank: rank),
            Steps(kind, ScalarType.Float32, batches, 2, rank: rank)
        );
        Assert.Equal(wide.Losses[0], narrow.Losses[0], wide.Losses[0] * 5e-3);
        var error = ((narrow.Mean - wide.Mean).norm() / wide.Mean.norm()).item<float>();
        Assert.True(error < (type == ScalarType.BFloat16 ? 0.1 : 0.02), $"relative error {error:E2}");
    }

    /// <param name="recompute">null runs layers once; else what their first run keeps.</param>
    /// <param name="rung">What is given up, from the start or after two steps.</param>
    private static (List<double> Losses, Tensor B, Tensor Mean) Steps(
        AdapterKind kind,
        ScalarType type,
        MicroBatch[][] batches,
        int steps,
        double dropout = 0,
        SavedForBackward? recompute = null,
        int rank = 16,
        Rung? rung = null,
        bool late = false,
        bool spill = false
    )
    {
        var spec = ModelSpec.Read(TestBackend.Nano);
        LayerStream Stream() =>
            new(
                spec.Layers,
                Gpu.Device,
                spill
                    ? new FileStore(
                        Path.Combine(Directory.CreateTempSubdirectory("memopt").FullName, "weights"),
                        cuda: true
                    )
                    : new HostStore()
            );
        var stream = rung?.StreamLayers > 0 && !late ? Stream() : null;
        var streamed = Rung.Streamed(spec.Layers, rung?.StreamLayers ?? 0).ToHashSet();
        using var weights = new WeightStream(
            TestBackend.Nano,
            spec,
            type,
            Gpu.Device,
            new(type, module => kind == AdapterKind.Qlora && module != "lm_head"),
            built: layer =>
            {
                if (streamed.Contains(layer.Index))
                    stream?.Add(layer);
            }
        );
        using var model = new Decoder(spec, weights, type, Gpu.Device);
        if (kind != AdapterKind.None)
            AdapterPass.Attach(model, new AdapterConfig { Rank = rank, Dropout = dropout }, 1);
        if (recompute is { } saves)
            model.RunLayer = Recompute.Layers(model.layers.Length - 1, saves);
        var config = new TrainConfig
        {
            LearningRate = kind == AdapterKind.None ? 1e-4 : 2e-3,
            Schedule = ScheduleKind.Constant,
        };
        var trained = AdapterPass.Trained(model, kind, BiasMode.None);
        using var optimizer = new Optimizer(
            trained,
            config,
            Gpu.Device,
            type,
            rung is { OffloadOptimizer: true } && !late
        );
        using var settings = new MemorySettings(model, optimizer.OffloadToHost, new Meter(), stream, Stream);
        using var scaler = type == ScalarType.Float16 ? new GradScaler() : null;
        var trainStep = new TrainStep(model, optimizer, new Schedule(config, steps), config, scaler, new Meter());
        var losses = Enumerable
            .Range(0, steps)
            .Select(i =>
            {
                if (rung is not null && i == (late ? 2 : 0))
                    settings.Apply(rung);
                return trainStep.Run(i, new(0, batches[i % batches.Length])).Loss;
            })
            .ToList();
        return (losses, optimizer.State[0].Tensor.cpu(), optimizer.State[1].Tensor.cpu());
    }
}
