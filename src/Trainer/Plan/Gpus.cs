using System.Globalization;
using Memopt.Core;

namespace Memopt.Trainer.Plan;

/// <summary>A card by name.</summary>
/// <param name="Name">As its maker names it.</param>
/// <param name="MiB">Memory that its driver reports.</param>
/// <param name="Bf16">Whether it computes in bf16; fp16 otherwise.</param>
internal sealed record Gpu(string Name, int MiB, bool Bf16 = true)
{
    public long Bytes => (long)MiB << 20;
}

/// <summary>Common cards, for planning where there is none.</summary>
internal static class Gpus
{
    /// <summary>Memory in MiB as nvidia-smi shows it.</summary>
    public static IReadOnlyList<Gpu> Known { get; } =
    [
        new("RTX 3060", 12288),
        new("RTX 3080", 10240),
        new("RTX 3090", 24576),
        new("RTX 4060 Ti", 16380),
        new("RTX 4070", 12282),
        new("RTX 4080", 16376),
        new("RTX 4090", 24564),
        new("RTX 5080", 16303),
        new("RTX 5090", 32607),
        new("RTX 6000 Ada", 49140),
        new("RTX A6000", 49140),
        new("T4", 15360, Bf16: false),
        new("V100 16GB", 16384, Bf16: false),
        new("V100 32GB", 32768, Bf16: false),
        new("L4", 23034),
        new("A10", 23028),
        new("A10G", 23028),
        new("A40", 46068),
        new("L40S", 46068),
        new("A100 40GB", 40960),
        new("A100 80GB", 81920),
        new("H100", 81559),
        new("H200", 143771),
    ];

    /// <summary>A card by its name, or one of no name by its memory: "RTX 4090", "24GiB", "24".</summary>
    public static Gpu Find(string text)
    {
        static string Bare(string name) =>
            name.Replace(" ", "", StringComparison.Ordinal)
                .Replace("-", "", StringComparison.Ordinal)
                .Replace("NVIDIA", "", StringComparison.OrdinalIgnoreCase)
                .Replace("GeForce", "", StringComparison.OrdinalIgnoreCase);
        if (
            Known.FirstOrDefault(gpu => Bare(gpu.Name).Equals(Bare(text), StringComparison.OrdinalIgnoreCase)) is
            { } known
        )
            return known;
        if (Memory(text) is { } bytes)
            return new(
                $"{(bytes / (double)(1L << 30)).ToString(CultureInfo.InvariantCulture)} GiB",
                (int)(bytes >> 20)
            );
        throw new UserFault(
            $"There is no card \"{text}\" in the table.",
            found: text,
            next: $"name one of {string.Join(", ", Known.Select(gpu => gpu.Name))}, or its memory: --gpu 24GiB"
        );
    }

    /// <summary>An amount of memory, "64GiB", "64 GB" or "64", in bytes; null when it is none, or none from 1 MiB to
    /// 100,000 GiB.</summary>
    public static long? Memory(string text)
    {
        var number = text.Trim();
        if (
            new[] { "GiB", "GB", "G" }.FirstOrDefault(unit =>
                number.EndsWith(unit, StringComparison.OrdinalIgnoreCase)
            ) is
            { } unit
        )
            number = number[..^unit.Length];
        const NumberStyles form = NumberStyles.AllowDecimalPoint | NumberStyles.AllowTrailingWhite;
        return
            double.TryParse(number, form, CultureInfo.InvariantCulture, out var gib)
            && gib is >= 1.0 / 1024 and < 100_000
            ? (long)(gib * 1024) << 20
            : null;
    }
}
