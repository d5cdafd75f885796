using Memopt.Core;
using Memopt.Hub;
using Memopt.Trainer.Data.Formats;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Tests.Data;

/// <summary>Alone, since the bytes that all threads allocate are counted.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class ParquetLimitsTests
{
    /// <summary>Small files that hold much, written by DuckDB 1.4: a text of 20,000,000 characters, 50,000,000 rows of
    /// one byte, 100 texts of 8,000,000 characters.
    /// </summary>
    [Theory]
    [InlineData("long-row.parquet", "8 MiB")]
    [InlineData("many-rows.parquet", "50,000,000 rows")]
    [InlineData("large-group.parquet", "bytes of data")]
    public void Parquet_file_beyond_the_limits_is_refused_by_name(string name, string found)
    {
        var path = Path.Combine(TestBackend.Repository, "tests", "Trainer.Tests", "Golden", "data", name);
        var file = new DataFile(path, DataNames.Format(path)!.Value, DataNames.Compression(path));
        var before = GC.GetTotalAllocatedBytes();
        var fault = Assert.Throws<UserFault>(() => RowFile.Read(file, 1000).Sum(chunk => chunk.Rows.Count));
        Assert.Contains(found, fault.Found);
        Assert.NotNull(fault.Next);
        Assert.InRange(GC.GetTotalAllocatedBytes() - before, 0, 512L << 20);
    }
}
