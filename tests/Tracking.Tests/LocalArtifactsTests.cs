using System.Security.Cryptography;
using System.Text;

namespace Memopt.Tracking.Tests;

public sealed class LocalArtifactsTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private LocalArtifacts Store => new(Path.Combine(folder, "store"));

    private string Sample(string name, string text)
    {
        var path = Path.Combine(folder, name);
        Directory.CreateDirectory(Path.Combine(path, "sub"));
        File.WriteAllText(Path.Combine(path, "a.txt"), text);
        File.WriteAllText(Path.Combine(path, "sub", "b.txt"), "shared");
        return path;
    }

    [Fact]
    public void Comes_back_as_it_went_in_and_is_kept_once()
    {
        var link = Store.Put("adapter", Sample("one", "1"));
        Assert.Equal(7, link.Bytes);
        Assert.Equal(link.Hash, Store.Put("other name", Sample("two", "1")).Hash);
        Store.Get(link.Hash, Path.Combine(folder, "back"));
        Assert.Equal("1", File.ReadAllText(Path.Combine(folder, "back", "a.txt")));
        Assert.Equal("shared", File.ReadAllText(Path.Combine(folder, "back", "sub", "b.txt")));
        Assert.Equal(2, Directory.EnumerateFiles(Path.Combine(folder, "store", "objects"), "*", SearchOption.AllDirectories).Count());
    }

    [Fact]
    public void Deleting_keeps_what_others_name()
    {
        var (one, two) = (Store.Put("one", Sample("one", "1")), Store.Put("two", Sample("two", "2")));
        Store.Delete(one.Hash);
        Assert.Equal([two.Hash], Store.List());
        Store.Get(two.Hash, Path.Combine(folder, "back"));
        Assert.Equal("shared", File.ReadAllText(Path.Combine(folder, "back", "sub", "b.txt")));
        Assert.Throws<TrackingException>(() => Store.Get(one.Hash, folder));
    }

    [Fact]
    public void Changed_content_is_not_handed_out()
    {
        var link = Store.Put("one", Sample("one", "1"));
        var stored = Directory.EnumerateFiles(Path.Combine(folder, "store", "objects"), "*", SearchOption.AllDirectories).First(file => File.ReadAllText(file) == "1");
        File.WriteAllText(stored, "2");
        Assert.Contains("was changed", Assert.Throws<TrackingException>(() => Store.Get(link.Hash, Path.Combine(folder, "back"))).Message);
    }

    [Fact]
    public void A_manifest_cannot_write_outside_its_folder()
    {
        var link = Store.Put("one", Sample("one", "1"));
        var manifest = Path.Combine(folder, "store", "manifests", link.Hash);
        var evil = Encoding.UTF8.GetBytes(File.ReadAllText(manifest).Replace("a.txt", "../../a.txt"));
        var hash = Convert.ToHexStringLower(SHA256.HashData(evil));
        File.WriteAllBytes(Path.Combine(folder, "store", "manifests", hash), evil);
        Assert.Contains("outside", Assert.Throws<TrackingException>(() => Store.Get(hash, Path.Combine(folder, "back"))).Message);
        File.WriteAllBytes(manifest, evil);
        Assert.Contains("was changed", Assert.Throws<TrackingException>(() => Store.Get(link.Hash, Path.Combine(folder, "back"))).Message);
        Assert.Throws<TrackingException>(() => Store.Get("../x", folder));
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);
}
