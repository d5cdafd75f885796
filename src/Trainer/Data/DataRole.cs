namespace Memopt.Trainer.Data;

/// <summary>What rows are for.</summary>
internal enum DataRole
{
    Train,
    Eval,
}
