namespace Memopt.Trainer.Tests.Gpu;

/// <summary>Every family on the GPU in fp32 against transformers and PEFT, within the tolerances of the CPU.</summary>
[Trait(Gpu.Trait, Gpu.Name)]
[Collection(Alone.Name)]
public sealed class GoldenTests
{
    public static TheoryData<string> Families => Models.GoldenTests.Families;

    [GpuTheory, MemberData(nameof(Families))]
    public void Logits_loss_and_gradients(string family) =>
        Models.GoldenTests.Logits_loss_and_gradients_on(Gpu.Device, family);

    [GpuTheory, MemberData(nameof(Families))]
    public void Greedy_tokens(string family) => Models.GoldenTests.Greedy_tokens_on(Gpu.Device, family);

    [GpuTheory, MemberData(nameof(Families))]
    public void Adapter_logits_and_ten_steps(string family) =>
        Models.GoldenTests.Adapter_logits_and_ten_steps_on(Gpu.Device, family);

    [GpuTheory, MemberData(nameof(Families))]
    public void Recomputation_changes_no_bit(string family) =>
        Models.GoldenTests.Recomputation_changes_no_bit_on(Gpu.Device, family);

    [GpuTheory, MemberData(nameof(Families))]
    public void An_adapter_answers_in_sixteen_bits(string family) =>
        Models.GoldenTests.An_adapter_answers_in_sixteen_bits_on(Gpu.Device, family);
}
