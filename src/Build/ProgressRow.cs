using System.Runtime.Serialization;

namespace Memopt.Build;

/// <summary>A row of the memory ledger in <see cref="ProgressRecord"/>.</summary>
[DataContract]
public sealed class ProgressRow
{
    [DataMember(Name = "name")]
    public string Name { get; set; } = "";

    /// <summary>device, host or disk.</summary>
    [DataMember(Name = "place")]
    public string Place { get; set; } = "";

    /// <summary>As planned.</summary>
    [DataMember(Name = "bytes")]
    public long Bytes { get; set; }

    /// <summary>As measured after the run; left out before it.</summary>
    [DataMember(Name = "measured", EmitDefaultValue = false)]
    public long? Measured { get; set; }
}
