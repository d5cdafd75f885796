using Memopt.Trainer.Data;
using Memopt.Trainer.Kernels;
using static TorchSharp.torch;

namespace Memopt.Trainer.Autograd;

/// <summary>A pass over the tokens that a context parallel rank has of whole rows.</summary>
/// <param name="ranks">The ranks that share the rows.</param>
/// <param name="slice">This rank's tokens.</param>
/// <param name="documents">What is packed into the whole rows; null when each is one.</param>
/// <param name="device">Where it is computed.</param>
internal sealed class ContextPass(ContextParallel ranks, ContextSlice slice, Documents? documents, Device device)
    : IDisposable
{
    private readonly List<Tensor> made = [];
    private Tensor? rows,
        wholeRows;
    private (Tensor OfQueries, Tensor OfKeys, int MostQueries, int MostKeys, Tensor KeyRows)? sequences;

    public ContextSlice Slice => slice;

    /// <summary>(N) int64: the number of each token among those of the whole micro-batch.</summary>
    public Tensor Rows => rows ??= Upload(slice.Rows);

    /// <summary>Keys and values of the tokens that this rank's queries may see.</summary>
    /// <param name="k">(B, T / c, KV, D).</param>
    /// <param name="v">As k.</param>
    /// <param name="fused">For the fused kernels the keys of each sequence, one after another; else whole rows.</param>
    /// <returns>(n, KV, D) each.</returns>
    public (Tensor Keys, Tensor Values) AllGather(Tensor k, Tensor v, bool fused)
    {
        using var scope = NewDisposeScope();
        var own = stack([k, v]).view(2, -1, k.shape[2], k.shape[3]);
        var all = ranks.AllGather(own).view(-1, k.shape[2], k.shape[3]); // (c · 2 · N, KV, D)
        var (ofKeys, ofValues) = Places(own.shape[1], fused);
        return (
            all.index_select(0, ofKeys).MoveToOuterDisposeScope(),
            all.index_select(0, ofValues).MoveToOuterDisposeScope()
        );
    }

    /// <summary>Gradients of this rank's keys and values: the sum of those that each rank has.</summary>
    /// <param name="dk">(n, KV, D), of what <see cref="AllGather"/> gave, in any shape.</param>
    /// <param name="dv">As dk.</param>
    /// <param name="fused">As in forward.</param>
    /// <returns>(B, T / c, KV, D) each.</returns>
    public (Tensor K, Tensor V) ReduceScatter(Tensor dk, Tensor dv, bool fused)
    {
        using var scope = NewDisposeScope();
        long groups = dk.shape[^2],
            dim = dk.shape[^1],
            tokens = (long)slice.Count * slice.Length;
        var all = zeros([slice.Ranks * 2 * tokens, groups, dim], dk.dtype, device);
        var (ofKeys, ofValues) = Places(tokens, fused);
        // A key is in two sequences at most: the sum is the same in either order.
        all.index_add_(0, ofKeys, dk.reshape(-1, groups, dim), 1);
        all.index_add_(0, ofValues, dv.reshape(-1, groups, dim), 1);
        var own = ranks
            .ReduceScatter(all.view(slice.Ranks, 2, tokens, groups, dim))
            .view(2, slice.Count, slice.Length, groups, dim);
        return (own.select(0, 0).MoveToOuterDisposeScope(), own.select(0, 1).MoveToOuterDisposeScope());
    }

    /// <summary>The mask of a layer as the fused kernels take it.</summary>
    public AttentionMask AttentionMaskFor(int? window)
    {
        var (ofQueries, ofKeys, mostQueries, mostKeys, _) = Sequences;
        return new(window is { } w && w < slice.RowLength ? w : null, ofQueries, mostQueries)
        {
            CuSeqlensOfKeys = ofKeys,
            MaxSeqlenOfKeys = mostKeys,
        };
    }

    /// <summary>The mask of a layer as numbers to add, 0 or −∞, (T / c, T), or (B, 1, T / c, T) where rows are
    /// packed.</summary>
    /// <param name="window">Tokens a query looks back; null sees all.</param>
    /// <param name="type">Of the numbers.</param>
    public Tensor MaskFor(int? window, ScalarType type)
    {
        using var scope = NewDisposeScope();
        var places = Scopes.Upload(slice.Places, device);
        var query = places.unsqueeze(1); // (T / c, 1)
        var seen = arange(0, slice.PaddedLength, device: device).unsqueeze(0); // (1, T)
        var mask = seen.le(query);
        if (window is { } w)
            mask = mask.logical_and_(seen.gt(query - w));
        if (documents is not null)
        {
            var starts = Scopes.Upload(documents.CuSeqlens, device);
            var numbers = searchsorted(starts, arange(documents.CuSeqlens[^1], int32, device), right: true)
                .reshape(slice.Count, slice.RowLength);
            // The padding is a document of its own.
            numbers = nn.functional.pad(numbers, [0, slice.PaddedLength - slice.RowLength], value: -1); // (B, T)
            var own = numbers.index_select(1, places);
            mask = mask.logical_and(own.unsqueeze(2).eq(numbers.unsqueeze(1))).unsqueeze(1);
        }
        return zeros(mask.shape, type, device)
            .masked_fill_(mask.logical_not(), double.NegativeInfinity)
            .MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        foreach (var tensor in made)
            tensor.Dispose();
    }

    private (Tensor OfQueries, Tensor OfKeys, int MostQueries, int MostKeys, Tensor KeyRows) Sequences
    {
        get
        {
            if (sequences is { } known)
                return known;
            var (ofQueries, ofKeys, keyRows) = slice.Sequences(documents);
            sequences = (Upload(ofQueries), Upload(ofKeys), Most(ofQueries), Most(ofKeys), Upload(keyRows));
            return sequences.Value;

            static int Most(int[] starts) => starts.Zip(starts.Skip(1), (from, to) => to - from).Max();
        }
    }

    /// <summary>Where keys and values are among those of all ranks, of which each gives tokens of keys, then as many of
    /// values.</summary>
    private (Tensor OfKeys, Tensor OfValues) Places(long tokens, bool fused)
    {
        var ofKeys = fused ? Sequences.KeyRows : wholeRows ??= Upload(slice.KeyRows);
        return (ofKeys, ofKeys + tokens);
    }

    /// <summary>A tensor that lives as long as the pass.</summary>
    private Tensor Upload<E>(E[] values)
        where E : unmanaged
    {
        var tensor = Scopes.Upload(values, device).DetachFromDisposeScope();
        made.Add(tensor);
        return tensor;
    }
}
