using static TorchSharp.torch;

namespace Memopt.Trainer.Native;

/// <summary>One argument of an ATen operator, in the order of its schema. Numbers and truth values convert; what may be
/// absent is <see cref="Maybe(Tensor?)"/>.</summary>
internal readonly struct AtenArg
{
    private AtenArg(ulong bits, bool optional = false) => (Bits, Optional) = (bits, optional);

    private AtenArg(Tensor? tensor, bool optional) => (Tensor, Optional) = (tensor, optional);

    private AtenArg(IReadOnlyList<Tensor> tensors) => Tensors = tensors;

    private AtenArg(bool undefined) => IsUndefined = undefined;

    internal bool IsUndefined { get; }

    internal ulong Bits { get; }

    internal Tensor? Tensor { get; }

    internal IReadOnlyList<Tensor>? Tensors { get; }

    internal bool Optional { get; }

    /// <summary>An absent optional argument of any type.</summary>
    public static AtenArg None => default;

    /// <summary>A tensor argument that is not optional in the schema and yet holds nothing.</summary>
    public static AtenArg Undefined => new(undefined: true);

    public static AtenArg Maybe(Tensor? value) => value is null ? None : new(value, true);

    public static AtenArg Maybe(double? value) =>
        value is { } present ? new(BitConverter.DoubleToUInt64Bits(present), true) : None;

    public static AtenArg Maybe(long? value) => value is { } present ? new((ulong)present, true) : None;

    /// <summary>An argument of type <c>Tensor[]</c>.</summary>
    public static AtenArg List(IReadOnlyList<Tensor> value) => new(value);

    public static implicit operator AtenArg(Tensor value) =>
        new(value ?? throw new ArgumentNullException(nameof(value)), false);

    public static implicit operator AtenArg(double value) => new(BitConverter.DoubleToUInt64Bits(value));

    public static implicit operator AtenArg(long value) => new((ulong)value);

    // Without this an int literal would be ambiguous between long and double, which have different bits.
    public static implicit operator AtenArg(int value) => new((ulong)value);

    public static implicit operator AtenArg(bool value) => new(value ? 1ul : 0ul);
}
