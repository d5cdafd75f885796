using System.Text;
using Memopt.Core;
using Memopt.Trainer.Weights;

namespace Memopt.Trainer.Tests.Weights;

/// <summary>Headers that the reference (safetensors 0.6, Rust) refuses are refused here.</summary>
public sealed class SafeTensorsTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Theory]
    [InlineData(
        """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""",
        "share bytes"
    )]
    [InlineData(
        """{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}""",
        "share bytes"
    )]
    [InlineData(
        """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}""",
        "twice"
    )]
    [InlineData("""{"a":{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}}""", "of shape [-1, -2]")]
    [InlineData("""{"a":{"dtype":"F32","shape":[9223372036854775807,2],"data_offsets":[0,8]}}""", "unreadable")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}""", "truncated")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}""", "truncated")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}""", "unreadable")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2]}}""", "unreadable")]
    [InlineData("""{"a":null}""", "unreadable")]
    [InlineData("""[1,2,3,4]""", "not an object")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} {}""", "unreadable")]
    public void Header_that_is_malformed_is_refused(string header, string told)
    {
        var path = Path.Combine(folder, "model.safetensors");
        File.WriteAllBytes(
            path,
            [
                .. BitConverter.GetBytes((long)Encoding.UTF8.GetByteCount(header)),
                .. Encoding.UTF8.GetBytes(header),
                .. new byte[16],
            ]
        );
        var fault = Assert.Throws<UserFault>(() => SafeTensors.Open(path));
        Assert.Contains("not a whole safetensors file", fault.Message);
        Assert.Contains(told, fault.Found);
    }

    [Fact]
    public void Header_longer_than_the_reference_accepts_is_refused_before_it_is_read()
    {
        var path = Path.Combine(folder, "model.safetensors");
        using (var file = File.Create(path))
        {
            file.Write(BitConverter.GetBytes(100_000_001L));
            file.SetLength(1L << 30); // a hole: it takes no disk
        }
        Assert.Contains("100000001", Assert.Throws<UserFault>(() => SafeTensors.Open(path)).Found);
    }
}
