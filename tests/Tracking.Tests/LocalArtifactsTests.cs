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
    public void Artifact_stored_comes_back_equal_and_is_stored_once()
    {
        var link = Store.Put("adapter", Sample("one", "1"));
        Assert.Equal(7, link.Bytes);
        Assert.Equal(link.Hash, Store.Put("other name", Sample("two", "1")).Hash);
        Store.Get(link.Hash, Path.Combine(folder, "back"));
        Assert.Equal("1", File.ReadAllText(Path.Combine(folder, "back", "a.txt")));
        Assert.Equal("shared", File.ReadAllText(Path.Combine(folder, "back", "sub", "b.txt")));
        Assert.Equal(
            2,
            Directory.EnumerateFiles(Path.Combine(folder, "store", "objects"), "*", SearchOption.AllDirectories).Count()
        );
    }

    [Fact]
    public void Artifact_deleted_leaves_content_that_others_share()
    {
        var (one, two) = (Store.Put("one", Sample("one", "1")), Store.Put("two", Sample("two", "2")));
        Store.Delete(one.Hash);
        Assert.Equal([two.Hash], Store.List());
        Store.Get(two.Hash, Path.Combine(folder, "back"));
        Assert.Equal("shared", File.ReadAllText(Path.Combine(folder, "back", "sub", "b.txt")));
        Assert.Throws<TrackingException>(() => Store.Get(one.Hash, folder));
    }

    [Fact]
    public void Artifact_with_changed_content_is_not_returned()
    {
        var link = Store.Put("one", Sample("one", "1"));
        var stored = Directory
            .EnumerateFiles(Path.Combine(folder, "store", "objects"), "*", SearchOption.AllDirectories)
            .First(file => File.ReadAllText(file) == "1");
        File.WriteAllText(stored, "2");
        Assert.Contains(
            "was changed",
            Assert.Throws<TrackingException>(() => Store.Get(link.Hash, Path.Combine(folder, "back"))).Message
        );
    }

    [Fact]
    public void Artifact_stored_again_repairs_damaged_content()
    {
        var link = Store.Put("one", Sample("one", "1"));
        var stored = Directory
            .EnumerateFiles(Path.Combine(folder, "store", "objects"), "*", SearchOption.AllDirectories)
            .First(file => File.ReadAllText(file) == "1");
        File.WriteAllText(stored, "0");
        Assert.Single(Store.Verify(link.Hash));
        Assert.Contains(
            "artifacts put",
            Assert.Throws<TrackingException>(() => Store.Get(link.Hash, Path.Combine(folder, "back"))).Next
        );
        Store.Put("one", Path.Combine(folder, "one"));
        Assert.Empty(Store.Verify(link.Hash));
    }

    [Fact]
    public void Artifact_with_unusual_names_or_no_files_comes_back_equal()
    {
        var from = Directory.CreateDirectory(Path.Combine(folder, "from #1 %2F"));
        var names = new List<string> { "a b.txt", "数据?.bin", "sub %2F/#ü" };
        if (!OperatingSystem.IsWindows())
            names.AddRange(["sub/back\\slash", "new\nline"]);
        foreach (var name in names)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(from.FullName, name))!);
            File.WriteAllText(Path.Combine(from.FullName, name), name);
        }
        var back = Path.Combine(folder, "back");
        Store.Get(Store.Put("odd", from.FullName).Hash, back);
        Assert.Equal(
            names.Order(),
            Directory
                .EnumerateFiles(back, "*", SearchOption.AllDirectories)
                .Select(file => Path.GetRelativePath(back, file))
                .Order()
        );
        Assert.All(names, name => Assert.Equal(name, File.ReadAllText(Path.Combine(back, name))));

        Store.Get(
            Store.Put("empty", Directory.CreateDirectory(Path.Combine(folder, "empty")).FullName).Hash,
            Path.Combine(folder, "nothing")
        );
        Assert.Empty(Directory.EnumerateFileSystemEntries(Path.Combine(folder, "nothing")));
    }

    [Fact]
    public void Artifact_with_links_stores_their_targets_and_names_broken_ones()
    {
        if (OperatingSystem.IsWindows())
            return; // links need a right of their own there
        var from = Sample("from", "1");
        Directory.CreateSymbolicLink(Path.Combine(from, "other"), Sample("elsewhere", "2"));
        Assert.Equal(
            ["a.txt", "other/a.txt", "other/sub/b.txt", "sub/b.txt"],
            Store.Files(Store.Put("one", from).Hash).Select(file => file.Path)
        );

        // Two of them: read without looking, each level would have twice as many.
        var around = new[]
        {
            Directory.CreateSymbolicLink(Path.Combine(from, "sub", "up"), ".."),
            Directory.CreateSymbolicLink(Path.Combine(from, "self"), "."),
        };
        Refused("leads to a folder that it is in");
        foreach (var link in around)
            link.Delete();
        File.CreateSymbolicLink(Path.Combine(from, "gone"), "nowhere");
        Refused("gone");

        void Refused(string why)
        {
            var fault = Assert.Throws<TrackingException>(() => Store.Put("one", from));
            Assert.StartsWith($"{from} cannot be stored", fault.Message);
            Assert.Contains(why, fault.Message);
            Assert.Contains("take out", fault.Next);
        }
    }

    [Fact]
    public void Artifact_whose_target_cannot_be_written_names_it_and_leaves_no_other_file()
    {
        var link = Store.Put("one", Sample("one", "1"));
        var back = Path.Combine(folder, "back");
        Directory.CreateDirectory(Path.Combine(back, "a.txt"));
        var fault = Assert.Throws<TrackingException>(() => Store.Get(link.Hash, back));
        Assert.StartsWith($"a.txt cannot be written to {back}", fault.Message);
        Assert.Equal(["a.txt"], Directory.EnumerateFileSystemEntries(back).Select(Path.GetFileName));
    }

    [Fact]
    public void Manifest_with_a_path_outside_its_folder_is_refused()
    {
        var link = Store.Put("one", Sample("one", "1"));
        var manifest = Path.Combine(folder, "store", "manifests", link.Hash);
        var evil = Encoding.UTF8.GetBytes(File.ReadAllText(manifest).Replace("a.txt", "../../a.txt"));
        var hash = Convert.ToHexStringLower(SHA256.HashData(evil));
        File.WriteAllBytes(Path.Combine(folder, "store", "manifests", hash), evil);
        Assert.Contains(
            "outside",
            Assert.Throws<TrackingException>(() => Store.Get(hash, Path.Combine(folder, "back"))).Message
        );
        File.WriteAllBytes(manifest, evil);
        Assert.Contains(
            "was changed",
            Assert.Throws<TrackingException>(() => Store.Get(link.Hash, Path.Combine(folder, "back"))).Message
        );
        Assert.Throws<TrackingException>(() => Store.Get("../x", folder));
    }

    [Fact]
    public void What_was_on_its_way_a_day_ago_is_removed()
    {
        var clock = new ManualClock(DateTimeOffset.UtcNow);
        var store = new LocalArtifacts(Path.Combine(folder, "store"), clock);
        var left = store.Incoming();
        clock.Now += TimeSpan.FromHours(23);
        store.Incoming();
        Assert.True(Directory.Exists(left));
        clock.Now += TimeSpan.FromHours(2);
        store.Incoming();
        Assert.False(Directory.Exists(left));
    }

    [Fact]
    public void Two_that_unpack_one_artifact_leave_nothing_beside_it()
    {
        var link = Store.Put("one", Sample("one", "1"));
        var places = new string[8];
        Parallel.For(0, places.Length, i => places[i] = Store.Unpacked(link.Hash));
        Assert.Single(places.Distinct());
        Assert.Equal([places[0]], Directory.EnumerateFileSystemEntries(Path.GetDirectoryName(places[0])!));
        Assert.Equal("1", File.ReadAllText(Path.Combine(places[0], "a.txt")));
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);
}
