namespace Memopt.Trainer.Tests.Gpu;

/// <summary>Every family on the GPU in fp32 against transformers and PEFT, within the tolerances of the CPU.</summary>
[Trait(Gpu.Trait, Gpu.Name)]
[Collection(ExclusiveCollection.Name)]
public sealed class GoldenTests
{
    public static TheoryData<string> Families => Models.GoldenTests.Families;

    [GpuTheory, MemberData(nameof(Families))]
    public void Logits_loss_and_gradients_equal_those_of_transformers(string family) =>
        Models.GoldenTests.Logits_loss_and_gradients_equal_those_of_transformers_on(Gpu.Device, family);

    [GpuTheory, MemberData(nameof(Families))]
    public void Greedy_tokens_equal_those_of_transformers(string family) =>
        Models.GoldenTests.Greedy_tokens_equal_those_of_transformers_on(Gpu.Device, family);

    [GpuTheory, MemberData(nameof(Families))]
    public void Adapter_logits_and_ten_steps_equal_those_of_PEFT(string family) =>
        Models.GoldenTests.Adapter_logits_and_ten_steps_equal_those_of_PEFT_on(Gpu.Device, family);

    [GpuTheory, MemberData(nameof(Families))]
    public void Recomputation_changes_no_bit(string family) =>
        Models.GoldenTests.Recomputation_changes_no_bit_on(Gpu.Device, family);

    [GpuTheory, MemberData(nameof(Families))]
    public void Adapter_in_sixteen_bits_answers_close_to_fp32(string family) =>
        Models.GoldenTests.Adapter_in_sixteen_bits_answers_close_to_fp32_on(Gpu.Device, family);
}
