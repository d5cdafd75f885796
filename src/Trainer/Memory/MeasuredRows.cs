using Memopt.Tracking;
using Memopt.Trainer.Plan;

namespace Memopt.Trainer.Memory;

/// <summary>
/// Bytes that a run took, under the names of its plan's rows. Memory is read around each allocation that belongs to a row;
/// bytes that are freed there count against the row.
/// </summary>
/// <param name="kind">Names the row of the trained weights.</param>
/// <param name="device">Bytes in use on the device now.</param>
/// <param name="host">Bytes in use on the host now; null where the host is the device.</param>
public sealed class MeasuredRows(AdapterKind kind, Func<long> device, Func<long>? host)
{
    private readonly Dictionary<string, long> bytes = [];
    private readonly Stack<(string? Device, string? Host)> open = new();
    private (long Device, long Host) last;

    /// <summary>The row of the trained weights.</summary>
    public string Trained => MemoryPlan.TrainedRow(kind);

    /// <summary>Charges the allocations until the end of the scope to a row on the device and one on the host. Scopes nest: the inner one counts.</summary>
    public IDisposable Row(string? onDevice, string? onHost = null)
    {
        Settle();
        open.Push((onDevice, onHost));
        return new Scope(this);
    }

    /// <summary>A row whose owner counts it itself.</summary>
    public void Set(string row, long value) => bytes[row] = value;

    /// <summary>A row of the plan with the bytes that were measured; null where none were.</summary>
    public LedgerRow Fill(LedgerRow row) => row with { Measured = bytes.TryGetValue(row.Name, out var value) ? Math.Max(0, value) : null };

    private void Settle()
    {
        var now = (Device: device(), Host: host?.Invoke() ?? 0);
        if (open.TryPeek(out var rows))
        {
            Add(rows.Device, now.Device - last.Device);
            Add(host is null ? null : rows.Host, now.Host - last.Host);
        }
        last = now;

        void Add(string? row, long taken)
        {
            if (row is not null)
                bytes[row] = bytes.GetValueOrDefault(row) + taken;
        }
    }

    private sealed class Scope(MeasuredRows rows) : IDisposable
    {
        public void Dispose()
        {
            rows.Settle();
            rows.open.Pop();
        }
    }
}
