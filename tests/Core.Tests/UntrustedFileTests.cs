using System.Text;

namespace Memopt.Core.Tests;

public sealed class UntrustedFileTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public void File_up_to_the_limit_is_read_whole_and_beyond_it_refused()
    {
        var path = Path.Combine(folder, "text");
        File.WriteAllText(path, "grüße", new UTF8Encoding(encoderShouldEmitUTF8Identifier: true));
        Assert.Equal("grüße", UntrustedFile.ReadAllText(path, 10));
        Assert.Equal(10, UntrustedFile.ReadAllBytes(path, 10).Length);
        Assert.Contains("longer than", Assert.Throws<UserFault>(() => UntrustedFile.ReadAllBytes(path, 9)).Message);
        // Such files say that they are empty.
        if (OperatingSystem.IsLinux())
            Assert.NotEmpty(UntrustedFile.ReadAllBytes("/proc/self/status", 1 << 20));
    }
}
