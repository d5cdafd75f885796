using Memopt.Core;

namespace Memopt.Hub;

/// <summary>How the rows of a file are written down.</summary>
public enum DataFormat
{
    [Alias("ndjson", "jsonlines")]
    Jsonl,
    Json,
    Csv,
    Tsv,
    Parquet,
}
