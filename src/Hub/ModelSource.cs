using System.Text.RegularExpressions;
using Memopt.Core;

namespace Memopt.Hub;

/// <summary>Kinds of places a model comes from.</summary>
public enum SourceKind
{
    Embedded,
    Folder,
    HuggingFace,
    ModelScope,
    Web,
    Azure,
}

/// <summary>A model.source that was understood.</summary>
/// <param name="Kind">Who serves it.</param>
/// <param name="Name">Its name there: a folder, org/name, an address, or account/container/path.</param>
public sealed partial record ModelSource(SourceKind Kind, string Name)
{
    /// <summary>Whether it has to be downloaded.</summary>
    public bool Remote => Kind is not (SourceKind.Embedded or SourceKind.Folder);

    /// <summary>As a user writes it.</summary>
    public override string ToString() =>
        Kind switch
        {
            SourceKind.Embedded => ModelHub.Nano,
            SourceKind.ModelScope => $"modelscope:{Name}",
            SourceKind.Azure => $"az://{Name}",
            SourceKind.Web => Public(Name),
            _ => Name,
        };

    /// <summary>A model.source as others may read it: an address without its parameters, which may be a
    /// signature.</summary>
    public static string Public(string source) =>
        Secrets.Redact(source.Contains("://", StringComparison.Ordinal) ? source.Split('?')[0] : source);

    /// <param name="source">model.source.</param>
    /// <param name="folder">What a relative path is relative to.</param>
    public static ModelSource Parse(string source, string folder)
    {
        if (source == ModelHub.Nano)
            return new(SourceKind.Embedded, source);
        if (source.StartsWith("embedded:", StringComparison.Ordinal))
            throw new UserFault(
                $"There is no embedded model \"{source}\".",
                found: source,
                next: $"use \"{ModelHub.Nano}\""
            );
        if (source.StartsWith("modelscope:", StringComparison.Ordinal))
            return new(
                SourceKind.ModelScope,
                Matching(Repository(), source["modelscope:".Length..], source, "modelscope:org/name")
            );
        if (source.StartsWith("az://", StringComparison.Ordinal))
            return new(
                SourceKind.Azure,
                Matching(Blob(), source["az://".Length..].TrimEnd('/'), source, "az://account/container/path")
            );
        if (
            source.StartsWith("https://", StringComparison.Ordinal)
            || source.StartsWith("http://", StringComparison.Ordinal)
        )
        {
            return Uri.TryCreate(source, UriKind.Absolute, out var address) && address.UserInfo.Length == 0
                ? new(SourceKind.Web, source)
                : throw new UserFault(
                    "The model's address is not one.",
                    found: source,
                    next: "use https://host/folder, the folder that holds config.json"
                );
        }
        // A folder that is there wins over a name on the hub.
        if (source.Contains('\0'))
            throw new UserFault(
                "The model's source has a zero byte in it.",
                next: "name a folder, hf:org/name, an address"
            );
        var path = Path.GetFullPath(Path.Combine(folder, source));
        if (Directory.Exists(path))
            return new(SourceKind.Folder, path);
        if (Repository().IsMatch(source) && !source.StartsWith('.'))
            return new(SourceKind.HuggingFace, source);
        throw new UserFault(
            $"The model \"{source}\" is not here.",
            found: $"no folder {path}",
            next: "name a folder that holds config.json, the tokenizer and the safetensors, a model as org/name, "
                + $"or \"{ModelHub.Nano}\""
        );
    }

    private static string Matching(Regex form, string name, string source, string example) =>
        form.IsMatch(name) && !name.Split('/').Contains("..")
            ? name
            : throw new UserFault(
                $"The model \"{source}\" is not understood.",
                found: source,
                next: $"write it as {example}"
            );

    [GeneratedRegex(@"^[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*$", RegexOptions.ECMAScript)]
    private static partial Regex Repository();

    [GeneratedRegex(@"^[a-z0-9]{3,24}/[a-z0-9$][a-z0-9-]{2,62}(/[^?#]+)?$")]
    private static partial Regex Blob();
}
