namespace Memopt.Trainer.Config;

/// <summary>The unit a number is in, for help texts and the schema.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class UnitAttribute(string unit) : Attribute
{
    public string Unit { get; } = unit;
}
