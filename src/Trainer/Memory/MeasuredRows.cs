using Memopt.Tracking;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>Bytes that a run holds, under the names of its plan's rows: sizes of the tensors that exist, and readings
/// of the device.</summary>
internal sealed class MeasuredRows
{
    private readonly Dictionary<string, long> bytes = [];

    /// <summary>Adds bytes to a row.</summary>
    public void Add(string row, long taken) => bytes[row] = bytes.GetValueOrDefault(row) + taken;

    /// <summary>A plan's rows with the bytes that were measured; null in a row that nobody measured.</summary>
    public IReadOnlyList<LedgerRow> Fill(IReadOnlyList<LedgerRow> planned) =>
        [.. planned.Select(row => row with { Measured = bytes.TryGetValue(row.Name, out var taken) ? taken : null })];

    /// <summary>Device bytes measured so far of what stays between steps.</summary>
    public long PersistentBytes => bytes.Where(row => MemoryPlan.IsPersistent(row.Key)).Sum(row => row.Value);
}
