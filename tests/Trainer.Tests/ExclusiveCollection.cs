namespace Memopt.Trainer.Tests;

/// <summary>Tests beside which nothing else may run: those that measure the whole process's memory, and those that
/// compute with libtorch at length, since a collection that another test's thread begins can free a number that
/// libtorch still reads (Native/NoGcScope).
/// </summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class ExclusiveCollection
{
    public const string Name = "exclusive";
}
