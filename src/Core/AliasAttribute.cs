namespace Memopt.Core;

/// <summary>Names that other tools have for exactly the same value: read as it, and never written.</summary>
[AttributeUsage(AttributeTargets.Field)]
public sealed class AliasAttribute(params string[] names) : Attribute
{
    public IReadOnlyList<string> Names => names;
}
