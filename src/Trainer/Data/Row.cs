namespace Memopt.Trainer.Data;

/// <summary>One sequence to train on; a label is the token itself, or -100 where there is no loss (not
/// shifted).</summary>
/// <param name="Ids">The tokens.</param>
/// <param name="Labels">As many as tokens.</param>
/// <param name="Line">The row's line in its file, from 1; in Parquet its number.</param>
internal sealed record Row(int[] Ids, int[] Labels, int Line)
{
    public const int NoLoss = -100;

    /// <summary>How many tokens are predicted with loss; the first has nothing before it.</summary>
    public int TargetCount
    {
        get
        {
            var count = 0;
            for (var t = 1; t < Labels.Length; t++)
                count += Labels[t] != NoLoss ? 1 : 0;
            return count;
        }
    }
}
