namespace Memopt.Trainer.Config;

/// <summary>Must be the same when a run is resumed: a checkpoint made with another value is refused.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class PinnedAttribute : Attribute;
