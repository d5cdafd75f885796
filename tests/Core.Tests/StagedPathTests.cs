namespace Memopt.Core.Tests;

public sealed class StagedPathTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    private string Target => Path.Combine(folder, "target");

    private IEnumerable<string?> Names => Directory.EnumerateFileSystemEntries(folder).Select(Path.GetFileName);

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public void Staged_file_has_its_name_only_when_it_is_whole()
    {
        File.WriteAllText(Target, "old");
        using (var staged = StagedPath.Beside(Target))
        {
            staged.Write(stream =>
            {
                stream.Write("new"u8);
                Assert.Equal("old", File.ReadAllText(Target));
            });
            Assert.Equal("old", File.ReadAllText(Target));
            staged.MoveTo(Target);
        }
        Assert.Equal("new", File.ReadAllText(Target));
        Assert.Equal(["target"], Names);
    }

    [Fact]
    public void Staged_file_whose_write_fails_leaves_the_old_file_and_nothing_else()
    {
        File.WriteAllText(Target, "old");
        Assert.Throws<InvalidDataException>(() =>
        {
            using var staged = StagedPath.Beside(Target);
            staged.Write(stream =>
            {
                stream.Write("half of the n"u8);
                throw new InvalidDataException();
            });
        });
        Assert.Equal("old", File.ReadAllText(Target));
        Assert.Equal(["target"], Names);
    }

    [Fact]
    public void Staged_file_left_by_a_kill_is_overwritten_though_it_is_longer()
    {
        File.WriteAllText(Target + ".staged", "left by a kill");
        using var staged = new StagedPath(Target + ".staged");
        staged.Write(stream => stream.Write("new"u8));
        staged.MoveTo(Target);
        Assert.Equal("new", File.ReadAllText(Target));
        Assert.Equal(["target"], Names);
    }

    [Fact]
    public void Staged_files_of_two_writers_have_different_names()
    {
        using var one = StagedPath.Beside(Target);
        using var other = StagedPath.Beside(Target);
        one.Write(stream => stream.Write("one"u8));
        other.Write(stream => stream.Write("other"u8));
        one.MoveTo(Target);
        Assert.Equal("one", File.ReadAllText(Target));
        other.MoveTo(Target);
        Assert.Equal("other", File.ReadAllText(Target));
    }

    [Fact]
    public void Staged_folder_begins_empty_and_replaces_none()
    {
        Directory.CreateDirectory(Target + ".staged");
        File.WriteAllText(Path.Combine(Target + ".staged", "left"), "by a kill");
        using (var staged = new StagedPath(Target + ".staged"))
        {
            staged.CreateFolder();
            File.WriteAllText(Path.Combine(staged.Path, "a"), "1");
            staged.MoveTo(Target);
        }
        Assert.Equal(["a"], Directory.EnumerateFiles(Target).Select(Path.GetFileName));

        using (var second = StagedPath.Beside(Target))
        {
            second.CreateFolder();
            Assert.Throws<IOException>(() => second.MoveTo(Target));
        }
        Assert.Equal(["a"], Directory.EnumerateFiles(Target).Select(Path.GetFileName));
        Assert.Equal(["target"], Names);
    }
}
