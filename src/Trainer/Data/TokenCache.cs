using System.Globalization;
using System.Text;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Trainer.Config;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data;

/// <summary>Tokens of large files on disk, by content. A chunk of a file is a shard, <c>shards/ab/HASH</c>, named by
/// its text and by all that makes tokens of it; it is there whole or not at all, so a killed run goes on with the next
/// one. A list, <c>files/HASH</c>, says which shards a file has. <c>known/HASH</c> remembers the sha256 of a file, so
/// that another start does not read it again.
/// </summary>
internal sealed class TokenCache(string folder, TimeProvider clock)
{
    // How shards are laid out and made: a change of either is a change of this.
    private const string Version = "4";
    private const int EndBytes = 64 << 10;
    private static readonly TimeSpan settled = TimeSpan.FromSeconds(2);

    /// <summary>sha256 of a file's bytes. A file whose path, size, time of change, first and last 64 KiB are those of
    /// a previous time is taken for the same, unless it was written within two seconds of being read then, when its
    /// time may not tell of another write.
    /// </summary>
    public string Hash(DataFile file, Action reading, CancellationToken stop)
    {
        var stat = new FileInfo(file.Path) is { LinkTarget: not null } link
            ? (FileInfo)link.ResolveLinkTarget(returnFinalTarget: true)!
            : new FileInfo(file.Path);
        var note = Path.Combine(folder, "known", Sha256.OfText(Path.GetFullPath(file.Path)));
        var now = clock.GetUtcNow();
        var seen =
            $"{stat.Length} {stat.LastWriteTimeUtc.Ticks.ToString(CultureInfo.InvariantCulture)} {Ends(stat.FullName)}";
        if (
            File.Exists(note)
            && File.ReadAllText(note).Split('\n') is [var before, { Length: 64 } known, ..]
            && before == seen
        )
            return known;
        reading();
        var hash = Sha256.OfFile(stat.FullName, stop);
        if (now - stat.LastWriteTimeUtc > settled)
            Put(note, Encoding.UTF8.GetBytes($"{seen}\n{hash}\n{file.Path}\n"));
        return hash;
    }

    /// <summary>What of a file's tokens does not lie in its text: the model's part, and the settings that shape a
    /// row.</summary>
    public static string Recipe(string model, DataConfig config, DataSource source, DataFormat format)
    {
        var columns = source.Columns ?? new Dictionary<string, string>();
        var named = columns
            .OrderBy(pair => pair.Key, StringComparer.Ordinal)
            .Select(pair => $"{pair.Key}={pair.Value}");
        var text =
            $"{Version}\n{typeof(TokenCache).Assembly.GetName().Version}\n{model}\n{format}\n"
            + $"{config.MaxLength}\n{config.TrainOn}\n{config.Truncate}\n{string.Join('\n', named)}";
        return Sha256.OfText(text);
    }

    /// <summary>The shards of a file, when all of them are here.</summary>
    /// <param name="file">sha256 of its bytes.</param>
    /// <param name="recipe">What makes tokens of it.</param>
    /// <param name="source">Where it is, for messages.</param>
    public IReadOnlyList<TokenShard>? Find(string file, string recipe, string source)
    {
        var list = ListOf(file, recipe);
        if (!File.Exists(list))
            return null;
        var shards = new List<TokenShard>();
        foreach (var line in File.ReadLines(list))
        {
            if (
                line.Split(' ') is not [{ Length: 64 } name, var first]
                || Data.TokenShard.Open(PathOf(name)) is not { } shard
            )
                return null;
            shards.Add(shard.At(int.Parse(first, CultureInfo.InvariantCulture), source));
        }
        return shards;
    }

    /// <summary>Notes that a file has these shards.</summary>
    public void Complete(string file, string recipe, IEnumerable<(string Name, int FirstLine)> shards) =>
        Put(
            ListOf(file, recipe),
            Encoding.UTF8.GetBytes(string.Concat(shards.Select(shard => $"{shard.Name} {shard.FirstLine}\n")))
        );

    /// <summary>A shard that is here already.</summary>
    public TokenShard? Shard(string name) => Data.TokenShard.Open(PathOf(name));

    public TokenShard Store(string name, byte[] bytes)
    {
        Put(PathOf(name), bytes);
        return Data.TokenShard.Open(PathOf(name))!;
    }

    /// <summary>Waits until no other process makes tokens for this cache, then keeps others waiting; ends with the
    /// process, however that ends.</summary>
    public FileStream Lock(Action waiting, CancellationToken stop)
    {
        var path = Path.Combine(folder, "lock");
        Directory.CreateDirectory(folder);
        return FileLock.Take(path, waiting, stop);
    }

    /// <summary>Removes what processes left that were killed while they wrote, a day ago and more.</summary>
    public void Tidy()
    {
        foreach (
            var left in Directory.Exists(folder)
                ? new DirectoryInfo(folder).EnumerateFiles("*.part", SearchOption.AllDirectories)
                : []
        )
        {
            if (clock.GetUtcNow() - left.LastWriteTimeUtc > TimeSpan.FromDays(1))
                left.Delete();
        }
    }

    private string ListOf(string file, string recipe) =>
        Path.Combine(folder, "files", Sha256.OfText($"{file} {recipe}"));

    private string PathOf(string shard) => Path.Combine(folder, "shards", shard[..2], shard);

    /// <summary>sha256 of a file's first and last bytes.</summary>
    private static string Ends(string path)
    {
        using var handle = File.OpenHandle(path);
        var size = RandomAccess.GetLength(handle);
        var buffer = new byte[2 * EndBytes];
        var count = RandomAccess.Read(handle, buffer.AsSpan(0, EndBytes), 0);
        if (size > EndBytes)
            count += RandomAccess.Read(handle, buffer.AsSpan(count, EndBytes), Math.Max(EndBytes, size - EndBytes));
        return Sha256.Of(buffer.AsSpan(0, count));
    }

    /// <summary>A file under its name only when it is whole.</summary>
    private static void Put(string path, byte[] bytes)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        using var staged = StagedPath.Beside(path);
        try
        {
            File.WriteAllBytes(staged.Path, bytes);
            staged.MoveTo(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserFault(
                "The tokens cannot be kept.",
                e.Message,
                "free some space or set data.cache to another folder; what is there is kept",
                e
            )
            {
                Failed = true,
            };
        }
    }
}
