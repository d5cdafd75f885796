using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Weights;

/// <summary>How the base of an adapter is loaded. An adapter means one thing over the weights that it was trained
/// over, and another over weights of other rounding.
/// </summary>
/// <param name="Quantized">Whether the frozen linears are kept in 4 bits.</param>
/// <param name="Quantization">How.</param>
/// <param name="Dtype">Compute type.</param>
internal sealed record BaseForm(bool Quantized, QuantizationConfig Quantization, DType Dtype)
{
    // In the header of the weights, which other tools pass over; it goes wherever the weights go.
    private const string Key = "memopt_base";

    /// <summary>As a config trains.</summary>
    public static BaseForm Of(RunConfig config) =>
        new(config.Adapter.Kind == AdapterKind.Qlora, config.Quantization, config.Model.Dtype);

    /// <summary>As somebody asks for it: what is not said is as it was trained, or where that is not known as it
    /// comes.</summary>
    /// <param name="trained">As it was trained; null when that is not known.</param>
    /// <param name="quantize">The 4-bit code asked for, or null.</param>
    /// <param name="unquantized">Whether no 4 bits are asked for.</param>
    /// <param name="dtype">The compute type asked for; auto asks for none.</param>
    public static BaseForm Asked(BaseForm? trained, QuantType? quantize, bool unquantized, DType dtype)
    {
        var form = trained ?? new(false, new(), DType.Auto);
        return new(
            quantize is not null || (form.Quantized && !unquantized),
            form.Quantization with
            {
                Type = quantize ?? form.Quantization.Type,
            },
            dtype == DType.Auto ? form.Dtype : dtype
        );
    }

    /// <summary>Settings under which a base is loaded so.</summary>
    public RunConfig Into(RunConfig config) =>
        config with
        {
            Model = config.Model with { Dtype = Dtype },
            Adapter = config.Adapter with { Kind = Quantized ? AdapterKind.Qlora : AdapterKind.Lora },
            Quantization = Quantization,
        };

    /// <summary>In words, for people.</summary>
    public override string ToString() =>
        (Quantized ? $"in 4 bits ({EnumNames.Spelling(Quantization.Type)})" : "unquantized")
        + $", dtype {EnumNames.Spelling(Dtype)}";

    /// <summary>What an adapter's file says of its base; null when it says nothing.</summary>
    internal static BaseForm? Read(IReadOnlyDictionary<string, string> metadata, string file)
    {
        if (!metadata.TryGetValue(Key, out var text))
            return null;
        try
        {
            var said = JsonNode.Parse(text)!;
            var quantization = new QuantizationConfig
            {
                Type = Choice<QuantType>(said["type"]),
                DoubleQuant = (bool)said["doubleQuant"]!,
                ComputeType = Choice<DType>(said["computeType"]),
            };
            return new((bool)said["quantized"]!, quantization, Choice<DType>(said["dtype"]));
        }
        catch (Exception e)
            when (e
                    is JsonException
                        or InvalidOperationException
                        or NullReferenceException
                        or FormatException
                        or ArgumentException
            )
        {
            throw new UserFault(
                $"{file} says in a way that cannot be read how its base was loaded.",
                found: text.Length > 200 ? text[..200] + "…" : text,
                next: "use the file as it was written",
                inner: e
            );
        }
    }

    /// <summary>The same, to be written.</summary>
    internal KeyValuePair<string, string> Write() =>
        new(
            Key,
            new JsonObject
            {
                ["quantized"] = Quantized,
                ["type"] = EnumNames.Spelling(Quantization.Type),
                ["doubleQuant"] = Quantization.DoubleQuant,
                ["computeType"] = EnumNames.Spelling(Quantization.ComputeType),
                ["dtype"] = EnumNames.Spelling(Dtype),
            }.ToJsonString()
        );

    private static T Choice<T>(JsonNode? name)
        where T : struct, Enum =>
        Enum.GetValues<T>().Cast<T?>().FirstOrDefault(value => EnumNames.Spelling(value!) == (string?)name)
        ?? throw new FormatException($"\"{name}\" is none of {string.Join(", ", Enum.GetNames<T>())}");
}
