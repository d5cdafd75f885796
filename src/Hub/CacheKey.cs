using Memopt.Core;

namespace Memopt.Hub;

/// <summary>Names of 40 hex digits for what has no commit: the same content has the same name everywhere.</summary>
internal static class CacheKey
{
    public static string Of(string text) => Sha256.OfText(text)[..40];

    public static string Of(IEnumerable<RemoteFile> files) =>
        Of(
            string.Join(
                '\n',
                files
                    .OrderBy(file => file.Path, StringComparer.Ordinal)
                    .Select(file => $"{file.Path} {file.Size} {file.Blob}")
            )
        );
}
