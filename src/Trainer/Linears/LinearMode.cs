using Memopt.Trainer.Autograd;

namespace Memopt.Trainer.Linears;

/// <summary>What the caller of a linear needs; less lets the linear save or compute less.</summary>
[Flags]
internal enum LinearMode
{
    /// <summary>The output, and a backward that has all it needs.</summary>
    Full = 0,

    /// <summary>The caller recomputes the input and gives it to <see cref="ForwardResult.WeightGradient"/>, so the
    /// input is not saved.</summary>
    RecomputesInput = 1,

    /// <summary>The output is known already; only backward is needed.</summary>
    SkipOutput = 2,

    /// <summary>The caller adds the low-rank part of the output, from
    /// <see cref="ForwardResult.PendingLowRank"/>.</summary>
    DeferLowRank = 4,

    /// <summary>The caller adds the low-rank part of the input's gradient, from
    /// <see cref="ForwardResult.PendingLowRankGradient"/>.</summary>
    DeferLowRankGradient = 8,
}
