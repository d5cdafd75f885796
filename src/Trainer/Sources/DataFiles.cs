using System.IO.Enumeration;
using Memopt.Core;
using Memopt.Hub;

namespace Memopt.Trainer.Sources;

/// <summary>A source of a config → the files that it means.</summary>
internal static class DataFiles
{
    // "/**/x" would go over the whole disk: at up to 12 µs an entry this is 2 s.
    private const int MostEntries = 200_000;

    /// <summary>The files in a fixed order: those of a folder or glob by name.</summary>
    /// <param name="source">As the config has it.</param>
    /// <param name="folder">What its path is relative to.</param>
    /// <param name="located">Data sets that were brought here, by source.</param>
    public static IReadOnlyList<DataFile> Of(
        DataSource source,
        string folder,
        IReadOnlyDictionary<string, Snapshot> located
    )
    {
        IReadOnlyList<string> paths;
        if (source.Remote)
        {
            var here =
                located.GetValueOrDefault(source.Source)
                ?? throw new UserFault(
                    $"The data set {source.Source} is not here.",
                    next: $"dotnet memopt pull {source.Source}"
                );
            paths = [.. here.Files.Select(file => System.IO.Path.Combine(here.Folder, file.Path))];
        }
        else
        {
            paths = Matches(source, folder);
        }
        if (paths.Count == 0 || Packed(paths) is not null)
            throw new UserFault(
                $"The data {source.Source} cannot be read.",
                paths.Count == 0 ? Problem(source, folder) : Packed(paths),
                "check data.train and data.eval"
            );
        return
        [
            .. paths.Select(path => new DataFile(
                path,
                source.Format ?? DataNames.Format(path) ?? DataFormat.Jsonl,
                DataNames.Compression(path)
            )),
        ];
    }

    /// <summary>What is wrong with a source before anything is read; null when nothing is.</summary>
    public static string? Problem(DataSource source, string folder)
    {
        if (source.Remote)
        {
            try
            {
                HubDataSet.Parse(source.Source);
                return null;
            }
            catch (UserFault fault)
            {
                return $"{fault.Message} {fault.Next}";
            }
        }
        var (path, glob) = (System.IO.Path.Combine(folder, source.Source), Glob.Is(source.Source));
        var found = Matches(source, folder);
        return found.Count > 0 ? Packed(found)
            : Directory.Exists(path)
                ? $"\"{source.Source}\" is a folder without data files (.jsonl, .json, .csv, .tsv, .parquet, or "
                    + "one of these compressed)"
            : glob ? $"\"{source.Source}\" matches no file in {folder}"
            : $"\"{source.Source}\" is not a file in {folder}";
    }

    private static string? Packed(IReadOnlyList<string> paths) =>
        paths.FirstOrDefault(DataNames.IsPacked) is { } path
            ? $"\"{System.IO.Path.GetFileName(path)}\" is packed in a way that is not read here: unpack it, or "
                + "compress it as .gz, .zst or .br"
            : null;

    private static List<string> Matches(DataSource source, string folder)
    {
        if (source.Source.Contains('\0'))
            return []; // in no file's name
        var path = System.IO.Path.GetFullPath(System.IO.Path.Combine(folder, source.Source));
        if (File.Exists(path))
            return [path];
        if (Directory.Exists(path))
            return [.. Under(path).Where(file => source.Format is not null || DataNames.Format(file) is not null)];
        if (!Glob.Is(source.Source))
            return [];
        // Only what the config writes can be a pattern, not the folder that it lies in; a folder that has just this
        // name is meant before others that match it.
        var root = System.IO.Path.GetPathRoot(source.Source) is { Length: > 0 } top ? top : folder;
        var parts = source.Source[(root == folder ? 0 : root.Length)..].Replace('\\', '/').Split('/').AsSpan();
        for (
            ;
            parts.Length > 1
                && System.IO.Path.Combine(root, parts[0]) is var next
                && (!Glob.Is(parts[0]) || Directory.Exists(next));
            parts = parts[1..]
        )
            root = next;
        root = System.IO.Path.GetFullPath(root);
        var form = Glob.Of(string.Join('/', parts!));
        return Directory.Exists(root)
            ?
            [
                .. Under(root)
                    .Where(file => form.IsMatch(System.IO.Path.GetRelativePath(root, file).Replace('\\', '/'))),
            ]
            : [];
    }

    private static IEnumerable<string> Under(string folder)
    {
        var found = 0;
        void Count()
        {
            if (++found > MostEntries)
                throw new UserFault(
                    $"{folder} holds more files and folders than are searched for data.",
                    $"more than {MostEntries:N0}",
                    "name the folder of the data in front of the glob"
                )
                {
                    OverBudget = true,
                };
        }
        var options = new EnumerationOptions
        {
            RecurseSubdirectories = true,
            AttributesToSkip = FileAttributes.Hidden | FileAttributes.System,
        };
        return new FileSystemEnumerable<string>(folder, (ref FileSystemEntry entry) => entry.ToFullPath(), options)
        {
            ShouldIncludePredicate = (ref FileSystemEntry entry) =>
            {
                Count();
                return !entry.IsDirectory;
            },
            ShouldRecursePredicate = (ref FileSystemEntry entry) => !LeadsUp(entry.ToFullPath()),
        }.Order(StringComparer.Ordinal);
    }

    /// <summary>Whether a folder is a link to one that it lies in, which would bring the same files again and
    /// again.</summary>
    private static bool LeadsUp(string folder) =>
        new DirectoryInfo(folder).ResolveLinkTarget(returnFinalTarget: true)?.FullName.TrimEnd('/') is { } target
        && $"{folder}/".StartsWith($"{target}/", StringComparison.Ordinal);
}
