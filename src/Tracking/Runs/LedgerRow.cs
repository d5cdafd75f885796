namespace Memopt.Tracking;

/// <summary>One line of the memory ledger: a name, the estimate, and after the run what was measured under the same
/// name.</summary>
/// <param name="Name">As in the plan: weights, adapters or trained weights, gradients, optimizer, activations, working
/// set.</param>
/// <param name="Bytes">Estimated bytes.</param>
/// <param name="Place">device, host or disk.</param>
/// <param name="Why">The formula in words.</param>
/// <param name="Measured">Measured bytes, or null where not measured.</param>
public sealed record LedgerRow(string Name, long Bytes, string Place, string Why, long? Measured = null);
