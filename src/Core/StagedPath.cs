namespace Memopt.Core;

/// <summary>A file or a folder that is written under a staged name and renamed when it is whole: a kill leaves the old
/// target or the new one, never a part. Disposing removes what was not renamed.</summary>
/// <param name="path">The staged name, on the disk of the target. One that is always the same is overwritten by the
/// next writer after a kill, so only one process at a time may use it.</param>
internal sealed class StagedPath(string path) : IDisposable
{
    public string Path => path;

    /// <summary>Under a name beside the target that no other writer has.</summary>
    public static StagedPath Beside(string target) => new($"{target}.{Guid.NewGuid():N}.part");

    /// <summary>Writes the file and flushes it to the disk.</summary>
    public void Write(Action<Stream> write)
    {
        using var stream = new FileStream(path, FileMode.Create);
        write(stream);
        stream.Flush(flushToDisk: true);
    }

    /// <summary>Makes an empty folder; one that a previous attempt left is removed.</summary>
    public void CreateFolder()
    {
        if (Directory.Exists(path))
            Directory.Delete(path, recursive: true);
        Directory.CreateDirectory(path);
    }

    /// <summary>Gives it its name. A file replaces the file of that name; a folder replaces nothing.</summary>
    /// <exception cref="IOException">It cannot be renamed, or a folder of that name is there.</exception>
    public void MoveTo(string target)
    {
        if (Directory.Exists(path))
            Directory.Move(path, target);
        else
            File.Move(path, target, overwrite: true);
    }

    public void Dispose()
    {
        try
        {
            if (Directory.Exists(path))
                Directory.Delete(path, recursive: true);
            else
                File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The fault of the writing counts more.
        }
    }
}
