namespace Memopt.Hub.Tests;

/// <summary>Tests with sockets and clocks run one after another: beside each other they make the machine busy, and a
/// busy machine makes them slow.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class ExclusiveCollection
{
    public const string Name = "exclusive";
}
