using Memopt.Trainer.Adapters;
using Memopt.Trainer.Autograd;
using Memopt.Trainer.Config;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Memory;
using Memopt.Trainer.Models;
using Memopt.Trainer.Optim;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Models;

/// <summary>Every family against transformers and PEFT: the numbers in Golden/ were made by make_golden.py with the
/// versions beside it.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class GoldenTests
{
    public static TheoryData<string> Families => ["llama", "qwen2", "qwen3", "mistral", "phi3"];

    [Theory, MemberData(nameof(Families))]
    public void Logits_loss_and_gradients_equal_those_of_transformers(string family) =>
        Logits_loss_and_gradients_equal_those_of_transformers_on(CPU, family);

    /// <summary>What full fine-tuning trained is what its folder holds: written, read again, it answers the same, and
    /// not as before.</summary>
    [Theory, MemberData(nameof(Families))]
    public void Merged_model_holds_every_trained_weight(string family)
    {
        using var scope = NewDisposeScope();
        using var golden = SafeTensors.Open(Path.Combine(TestBackend.Golden(family), "golden.safetensors"));
        using var model = Load(family);
        var (ids, labels) = (golden.Read("input_ids"), golden.Read("labels"));
        var trained = AdapterPass.Trained(model, AdapterKind.None, BiasMode.None);
        using var optimizer = new Optimizer(trained, new TrainConfig(), model.Device);
        Learn(model, [(ids, labels)]);
        optimizer.Step(1, 1e-2, optimizer.Norm());
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        MergedModel.Save(folder, TestBackend.Golden(family), model);
        using var again = Load(folder);
        var written = again.Parameters().ToDictionary(parameter => parameter.Name);
        Assert.Equal(written.Count, trained.Sum(unit => unit.Parameters.Count));
        foreach (var before in trained.SelectMany(unit => unit.Parameters))
            Assert.True(before.Value.Equals(written[before.Name].Value), before.Name);
        Close(model.Logits(ids), again.Logits(ids), 1e-6);
        var moved = (again.Logits(ids) - golden.Read("logits")).norm() / golden.Read("logits").norm();
        Assert.True(moved.item<float>() > 1e-2);
        Directory.Delete(folder, recursive: true);
    }

    [Theory, MemberData(nameof(Families))]
    public void Greedy_tokens_equal_those_of_transformers(string family) =>
        Greedy_tokens_equal_those_of_transformers_on(CPU, family);

    [Theory, MemberData(nameof(Families))]
    public void Adapter_logits_and_ten_steps_equal_those_of_PEFT(string family) =>
        Adapter_logits_and_ten_steps_equal_those_of_PEFT_on(CPU, family);

    [Theory, MemberData(nameof(Families))]
    public void Recomputation_changes_no_bit(string family) => Recomputation_changes_no_bit_on(CPU, family);

    internal static void Logits_loss_and_gradients_equal_those_of_transformers_on(
        Device device,
        string family,
        IProcessGroup? tensor = null
    )
    {
        using var scope = NewDisposeScope();
        using var golden = SafeTensors.Open(Path.Combine(TestBackend.Golden(family), "golden.safetensors"));
        using var model = Load(family, device, tensor: tensor);
        var ids = golden.Read("input_ids").to(device);
        Close(golden.Read("logits"), model.Logits(ids), 1e-4, rows: 18);

        var trained = AdapterPass.Trained(model, AdapterKind.None, BiasMode.None);
        using var optimizer = new Optimizer(trained, new TrainConfig(), model.Device, tensor: tensor);
        var loss = Learn(model, [(ids, golden.Read("labels").to(device))]);
        optimizer.ReduceGradient();
        Close(golden.Read("loss"), loss, 1e-4);
        var compared = 0;
        foreach (var name in golden.Tensors.Keys.Where(key => key.StartsWith("grad.", StringComparison.Ordinal)))
        {
            var parameter = trained.SelectMany(unit => unit.Parameters).Single(p => p.Name == name["grad.".Length..]);
            var gradient = parameter.Slice?.Gather(parameter.Grad!, tensor!) ?? parameter.Grad!;
            Close(golden.Read(name), gradient, 1e-3, what: name);
            compared++;
        }
        Assert.True(compared >= 15);
    }

    internal static void Greedy_tokens_equal_those_of_transformers_on(Device device, string family)
    {
        using var scope = NewDisposeScope();
        using var golden = SafeTensors.Open(Path.Combine(TestBackend.Golden(family), "golden.safetensors"));
        using var model = Load(family, device);
        var expected = golden.Read("greedy").data<long>().ToArray();
        using var cache = new KvCache(model.Spec.Layers);
        var ids = expected[..12].ToList();
        var next = tensor(ids.ToArray(), device: device).unsqueeze(0);
        while (ids.Count < expected.Length)
        {
            ids.Add(model.Logits(next, cache).select(1, -1).argmax(-1).cpu().item<long>());
            next = tensor(new[] { ids[^1] }, device: device).unsqueeze(0);
        }
        Assert.Equal(expected, ids);
    }

    internal static void Adapter_logits_and_ten_steps_equal_those_of_PEFT_on(
        Device device,
        string family,
        IProcessGroup? tensor = null
    )
    {
        using var scope = NewDisposeScope();
        using var golden = SafeTensors.Open(Path.Combine(TestBackend.Golden(family), "golden.safetensors"));
        using var model = Load(family, device, tensor: tensor);
        AdapterFiles.Load(Path.Combine(TestBackend.Golden(family), "adapter-start"), model);
        var ids = golden.Read("input_ids").to(device);
        Close(golden.Read("lora_logits"), model.Logits(ids), 1e-4, rows: 18);

        var train = new TrainConfig
        {
            LearningRate = 1e-2,
            WeightDecay = 0.01,
            Steps = 10,
        };
        using var optimizer = new Optimizer(
            AdapterPass.Trained(model, AdapterKind.Lora, BiasMode.None),
            train,
            model.Device,
            tensor: tensor
        );
        var schedule = new Schedule(train, 10);
        (Tensor, Tensor)[] batch =
        [
            (ids, golden.Read("labels").to(device)),
            (golden.Read("input_ids2").to(device), golden.Read("labels2").to(device)),
        ];
        var (losses, norms) = (
            golden.Read("traj_loss").data<double>().ToArray(),
            golden.Read("traj_gradnorm").data<double>().ToArray()
        );
        for (var step = 0; step < 10; step++)
        {
            Within(losses[step], Learn(model, batch).cpu().item<double>(), 1e-3);
            optimizer.ReduceGradient();
            var norm = optimizer.Norm();
            Within(norms[step], norm.cpu().item<float>(), 1e-3);
            optimizer.Step(step + 1, schedule.At(step), norm);
        }
        var end = Path.Combine(TestBackend.Golden(family), "adapter-end");
        using var values = optimizer.GatherValues();
        if (tensor is { Rank: > 0 })
            return;
        using var final = SafeTensors.Open(Path.Combine(end, "adapter_model.safetensors"));
        foreach (var lora in model.Linears().Select(slot => slot.Linear).OfType<LoraLinear>())
        {
            Close(final.Read("base_model.model." + lora.lora_A.Name), lora.lora_A.Value, 2e-3);
            Close(final.Read("base_model.model." + lora.lora_B.Name), lora.lora_B.Value, 2e-3);
        }

        // Merged weights, written and read as any model is, answer as PEFT's merge does.
        using var tuned = Load(family, device);
        AdapterFiles.Load(end, tuned);
        var folder = Directory.CreateTempSubdirectory("memopt").FullName;
        MergedModel.Save(folder, TestBackend.Golden(family), tuned);
        using var merged = Load(folder, device);
        Close(golden.Read("merged_logits"), merged.Logits(ids), 1e-4, rows: 18);
    }

    internal static void Recomputation_changes_no_bit_on(Device device, string family)
    {
        using var scope = NewDisposeScope();
        using var golden = SafeTensors.Open(Path.Combine(TestBackend.Golden(family), "golden.safetensors"));
        (Tensor, Tensor)[] batch = [(golden.Read("input_ids").to(device), golden.Read("labels").to(device))];
        var runs = new[] { false, true }
            .Select(recompute =>
            {
                var model = Load(family, device);
                AdapterPass.Attach(model, new AdapterConfig { Dropout = 0.25 }, 7);
                using var optimizer = new Optimizer(
                    AdapterPass.Trained(model, AdapterKind.Lora, BiasMode.None),
                    new TrainConfig(),
                    model.Device
                );
                if (recompute)
                    model.RunLayer = Recompute.Layers(model.layers.Length - 1, SavedForBackward.Both);
                var loss = Learn(model, batch, seed: 11).cpu().item<double>();
                return (
                    loss,
                    model
                        .Linears()
                        .Select(slot => slot.Linear)
                        .OfType<LoraLinear>()
                        .Select(lora => lora.lora_B.Grad!.clone())
                        .ToList()
                );
            })
            .ToList();
        Assert.Equal(runs[0].loss, runs[1].loss);
        Assert.NotEmpty(runs[0].Item2);
        Assert.All(
            runs[0].Item2.Zip(runs[1].Item2),
            pair => Assert.True(pair.First.Equals(pair.Second) && pair.First.abs().max().cpu().item<float>() > 0)
        );
    }

    /// <summary>As eval and infer use an adapter: in 16 bits, with no optimizer that would keep copies.</summary>
    [Theory, MemberData(nameof(Families))]
    public void Adapter_in_sixteen_bits_answers_close_to_fp32(string family) =>
        Adapter_in_sixteen_bits_answers_close_to_fp32_on(CPU, family);

    internal static void Adapter_in_sixteen_bits_answers_close_to_fp32_on(Device device, string family)
    {
        using var scope = NewDisposeScope();
        using var golden = SafeTensors.Open(Path.Combine(TestBackend.Golden(family), "golden.safetensors"));
        using var model = Load(family, device, bfloat16);
        AdapterFiles.Load(Path.Combine(TestBackend.Golden(family), "adapter-start"), model);
        Close(
            golden.Read("lora_logits"),
            model.Logits(golden.Read("input_ids").to(device)).to(float32),
            3e-2,
            rows: 18
        );
        // A fresh adapter of the rank that the fused kernels serve changes nothing, since its B is zero.
        using var plain = Load(family, device, bfloat16);
        var before = plain.Logits(golden.Read("input_ids").to(device)).to(float32);
        AdapterPass.Attach(plain, new AdapterConfig { Rank = 16 }, 1);
        Close(before, plain.Logits(golden.Read("input_ids").to(device)).to(float32), 1e-2, rows: 18);
    }

    internal static Decoder Load(
        string familyOrFolder,
        Device? device = null,
        ScalarType type = ScalarType.Float32,
        IProcessGroup? tensor = null
    )
    {
        var parallel = tensor is null ? null : new TensorParallel(tensor);
        device ??= CPU;
        var folder = Path.IsPathRooted(familyOrFolder) ? familyOrFolder : TestBackend.Golden(familyOrFolder);
        var spec = ModelSpec.Read(folder);
        using var weights = new WeightStream(folder, spec, type, device, tensor: parallel);
        return new Decoder(spec, weights, type, device, parallel);
    }

    /// <summary>Mean loss over all trained tokens of the micro-batches; gradients are left in the parameters.</summary>
    private static Tensor Learn(Decoder model, (Tensor Ids, Tensor Labels)[] batch, long? seed = null)
    {
        var shifted = Array.ConvertAll(batch, b => b.Labels.narrow(1, 1, b.Labels.shape[1] - 1));
        var count = shifted.Sum(labels => labels.ne(-100).sum().cpu().item<long>());
        var total = zeros([], float64, model.Device);
        foreach (var (part, labels) in batch.Zip(shifted))
        {
            using var scope = NewDisposeScope();
            using var context = model.NewContext((int)part.Ids.shape[1], needsGradient: true, seed: seed);
            var (hidden, backward) = model.Forward(part.Ids, context);
            var flat = cat([labels, full([labels.shape[0], 1], -100, int64, labels.device)], 1).reshape(-1);
            var rows = flat.ne(-100).nonzero().squeeze(1);
            var (sum, _, lossBack) = ChunkedCrossEntropy.Loss(
                model.lm_head,
                hidden,
                rows,
                flat.index_select(0, rows),
                1.0 / count,
                context,
                tensor: model.Tensor
            );
            backward!(lossBack!(sum));
            total.add_(sum / count);
        }
        return total;
    }

    internal static void Close(Tensor expected, Tensor actual, double relative, int? rows = null, string what = "")
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var (e, a) = (expected.cpu().to(float64), actual.detach().cpu().to(float64).reshape(expected.shape));
        if (rows is { } r)
            (e, a) = (
                cat([e.select(0, 0), e.select(0, 1).narrow(0, 0, r)]),
                cat([a.select(0, 0), a.select(0, 1).narrow(0, 0, r)])
            );
        var error = ((e - a).norm() / e.norm().clamp_min(1e-30)).item<double>();
        Assert.True(error <= relative, $"{what} relative error {error:E2} > {relative:E0}");
    }

    private static void Within(double expected, double actual, double relative) =>
        Assert.True(Math.Abs(expected - actual) <= relative * Math.Abs(expected), $"{actual} for {expected}");
}
