namespace Memopt.Hub.Tests;

/// <summary>Tests with sockets and clocks run by themselves: others measure this process's memory meanwhile, and a busy
/// machine makes them slow.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class Network
{
    public const string Name = "network";
}
