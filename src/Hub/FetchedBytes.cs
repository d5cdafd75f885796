namespace Memopt.Hub;

/// <summary>What a download cost.</summary>
/// <param name="Fetched">Bytes that came over the network.</param>
/// <param name="Resumed">Bytes found from before.</param>
internal readonly record struct FetchedBytes(long Fetched, long Resumed)
{
    public static FetchedBytes operator +(FetchedBytes a, FetchedBytes b) =>
        new(a.Fetched + b.Fetched, a.Resumed + b.Resumed);
}
