using System.Text;

namespace Memopt.Core;

/// <summary>What of a folder's repository is in no commit, as a patch that <c>git apply</c> takes unless a secret was
/// replaced in it.</summary>
internal static class GitChanges
{
    private const int most = 4 << 20,
        mostOfFile = 256 << 10;

    /// <summary>The diff of the repository against its commit, and behind it the folder's own untracked text files up
    /// to 256 KiB; 4 MiB in all, secrets replaced. What is left out is named. Null when there is nothing, outside a
    /// repository, and without git.
    /// </summary>
    public static string? Of(string folder)
    {
        if (
            Git.In(folder) is not { } git
            || git.Ask("rev-parse", "--show-toplevel")?.TrimEnd('\n') is not { } root
            // A stranger's configuration can name any folder as the one that is tracked.
            || !Path.Exists(Path.Combine(root, ".git"))
            || git.Ask(
                "diff",
                "HEAD",
                "--no-color",
                "--no-ext-diff",
                "--no-textconv",
                "--submodule=short",
                "--ignore-submodules=dirty"
            )
                is not { } diff
        )
        {
            return null;
        }
        var text = new StringBuilder(diff);
        var leftOut = new List<string>();
        foreach (
            var name in (
                git.Ask(
                    "ls-files",
                    "--others",
                    "--exclude-standard",
                    "--full-name",
                    "-z",
                    "--",
                    ".",
                    ":(exclude,glob)**/.memopt/**"
                ) ?? ""
            ).Split('\0', StringSplitOptions.RemoveEmptyEntries)
        )
        {
            if (text.Length < most && Text(Path.Combine(root, name)) is { } content)
                Append(text, name, content);
            else
                leftOut.Add(name);
        }
        if (text.Length == 0 && leftOut.Count == 0)
            return null;
        var patch = Secrets.RedactLines(
            text.Length <= most ? text.ToString() : text.ToString(0, most) + "\n# cut off here\n"
        );
        return leftOut.Count == 0
            ? patch
            : patch + string.Concat(leftOut.Take(1000).Select(name => $"# untracked, not in here: {name}\n"));
    }

    /// <summary>A small text file, or null.</summary>
    private static string? Text(string file)
    {
        try
        {
            if (new FileInfo(file) is not { Exists: true, Length: <= mostOfFile, LinkTarget: null })
                return null;
            // A named pipe has no length, and reading it may never end.
            var bytes = new FileInfo(file).Length == 0 ? [] : File.ReadAllBytes(file);
            return bytes.Contains((byte)0) ? null : new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or DecoderFallbackException)
        {
            return null;
        }
    }

    private static void Append(StringBuilder patch, string name, string content)
    {
        patch.Append($"diff --git a/{name} b/{name}\nnew file mode 100644\n");
        if (content.Length == 0)
            return;
        var lines = content.Split('\n');
        var count = lines.Length - (content.EndsWith('\n') ? 1 : 0);
        patch.Append($"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{count} @@\n");
        foreach (var line in lines.Take(count))
            patch.Append('+').Append(line).Append('\n');
        if (!content.EndsWith('\n'))
            patch.Append("\\ No newline at end of file\n");
    }
}
