using Memopt.Trainer.Autograd;
using static TorchSharp.torch;

namespace Memopt.Trainer.Optim;

/// <summary>How the trained weights lie in the flat arrays of an optimizer: unit after unit. On several ranks each unit
/// is padded with zeros until it divides into equal slices. A rank's shard holds its slice of every unit, as in ZeRO
/// (Rajbhandari et al. 2020, arXiv 1910.02054) and FSDP. One rank has no padding: its shard is the whole.</summary>
internal sealed class ShardLayout
{
    /// <summary>Which order the weights have in a checkpoint. Before 2 they were not ordered by layers.</summary>
    public const int Order = 2;

    private readonly List<ShardedUnit> units = [];

    /// <param name="counts">Weights of each unit.</param>
    /// <param name="ranks">Ranks that divide them.</param>
    public ShardLayout(IReadOnlyList<long> counts, int ranks)
        : this(counts.Select(count => new UnitRange(null, count)), ranks) { }

    /// <param name="ranges">The units' weights; one without a start follows the unit before.</param>
    /// <param name="ranks">Ranks that divide them.</param>
    public ShardLayout(IEnumerable<UnitRange> ranges, int ranks)
    {
        Ranks = ranks;
        long next = 0;
        foreach (var (start, count, isCopy) in ranges)
        {
            var slice = ranks == 1 ? count : Padded(count, ranks);
            units.Add(new(count, slice, WholeSize, ShardSize) { Start = start ?? next, IsCopy = isCopy });
            next = units[^1].Start + count;
            Count += count;
            WholeSize += slice * ranks;
            ShardSize += slice;
        }
    }

    private static long Padded(long count, int ranks) =>
        (count + ranks * TrainedUnit.SliceAlignment - 1)
        / (ranks * TrainedUnit.SliceAlignment)
        * TrainedUnit.SliceAlignment;

    /// <summary>Ranks that divide the weights.</summary>
    public int Ranks { get; }

    /// <summary>Weights.</summary>
    public long Count { get; }

    /// <summary>Elements of an array that holds all of them.</summary>
    public long WholeSize { get; }

    /// <summary>Elements of an array that holds a rank's shard.</summary>
    public long ShardSize { get; }

    /// <summary>The units, in the order of the arrays.</summary>
    public IReadOnlyList<ShardedUnit> Units => units;

    /// <summary>The weights of the units, as parts of those that the whole model trains.</summary>
    public IReadOnlyList<UnitRange> Ranges =>
        [.. units.Select(unit => new UnitRange(unit.Start, unit.Count, unit.IsCopy))];

    /// <summary>The same weights divided among another number of ranks.</summary>
    public ShardLayout For(int ranks) => ranks == Ranks ? this : new(Ranges, ranks);

    /// <summary>The slices of an array of all weights, one for each parameter.</summary>
    /// <param name="trained">The units, in the order of the arrays.</param>
    /// <param name="whole">The array, <see cref="WholeSize"/> elements.</param>
    public IEnumerable<(Parameter Parameter, Tensor Slice)> Slices(IEnumerable<TrainedUnit> trained, Tensor whole) =>
        trained.Zip(units).SelectMany(pair => pair.First.Slices(whole.narrow(0, pair.Second.Whole, pair.Second.Count)));

    /// <summary>The pieces of a rank's shard that are contiguous in the whole too.</summary>
    public IEnumerable<ShardPiece> Pieces(int rank) =>
        Ranks == 1
            ? [new(0, 0, WholeSize)]
            : units.Select(unit => new ShardPiece(unit.Shard, unit.Whole + rank * unit.Slice, unit.Slice));

    /// <summary>Weights of a rank's shard, padding left out.</summary>
    public long Held(int rank) => units.Sum(unit => Math.Clamp(unit.Count - rank * unit.Slice, 0, unit.Slice));

    /// <summary>The pieces that a rank's shard has in common with one of a rank in another layout, be it of other
    /// stages of the same model; each once, also where the other layout has a copy.</summary>
    public IEnumerable<SharedPiece> Shared(int rank, ShardLayout other, int otherRank) =>
        from mine in units
        from theirs in other.units
        where !theirs.IsCopy
        let first = mine.Start + rank * mine.Slice
        let theirFirst = theirs.Start + otherRank * theirs.Slice
        let @from = Math.Max(first, theirFirst)
        let to = Math.Min(
            Math.Min(first + mine.Slice, mine.Start + mine.Count),
            Math.Min(theirFirst + theirs.Slice, theirs.Start + theirs.Count)
        )
        where @from < to
        select new SharedPiece(mine.Shard + @from - first, theirs.Shard + @from - theirFirst, to - @from);
}

/// <summary>The weights of a unit among those that the whole model trains, in the order of one rank's arrays. All
/// numbers are elements.</summary>
/// <param name="Start">The first; null where it follows the unit before.</param>
/// <param name="Count">How many.</param>
/// <param name="IsCopy">Whether another stage of the pipeline has them too, and counts them.</param>
internal readonly record struct UnitRange(long? Start, long Count, bool IsCopy = false);

/// <summary>A unit's place. All numbers are elements.</summary>
/// <param name="Count">Its weights.</param>
/// <param name="Slice">A rank's slice of it, padding included.</param>
/// <param name="Whole">Its beginning in the array of all weights.</param>
/// <param name="Shard">The beginning of a rank's slice in the rank's shard.</param>
internal sealed record ShardedUnit(long Count, long Slice, long Whole, long Shard)
{
    /// <summary>Its beginning among the weights that the whole model trains.</summary>
    public long Start { get; init; }

    /// <summary>Whether another stage of the pipeline has these weights too, and counts them.</summary>
    public bool IsCopy { get; init; }
}

/// <summary>A contiguous piece. All numbers are elements.</summary>
/// <param name="Shard">Its beginning in the shard.</param>
/// <param name="Whole">Its beginning in the array of all weights.</param>
/// <param name="Length">Its length.</param>
internal readonly record struct ShardPiece(long Shard, long Whole, long Length);

/// <summary>A piece that two shards have. All numbers are elements.</summary>
/// <param name="To">Its beginning in one shard.</param>
/// <param name="From">Its beginning in the other.</param>
/// <param name="Length">Its length.</param>
internal readonly record struct SharedPiece(long To, long From, long Length);
