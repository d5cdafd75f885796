using System.Collections;

namespace Memopt.Trainer.Linears;

/// <summary>Linears that share an input, in the order of the weights file, and the group that runs them. The group is
/// found again when a linear is replaced.</summary>
internal sealed class Projections(params Linear[] linears) : IReadOnlyList<Linear>
{
    private LinearGroup? group;

    public int Count => linears.Length;

    public Linear this[int index] => linears[index];

    /// <summary>Runs the linears on their common input.</summary>
    public LinearGroup Group => group ??= LinearGroup.Of(linears);

    /// <summary>Puts another linear in the place of one, as an adapter does.</summary>
    public void Replace(int index, Linear linear) => (linears[index], group) = (linear, null);

    public IEnumerator<Linear> GetEnumerator() => ((IEnumerable<Linear>)linears).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => linears.GetEnumerator();
}
