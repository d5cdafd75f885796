using System.Security.Cryptography;
using System.Text;
using Memopt.Core;

namespace Memopt.Text;

/// <summary>What of a model turns text into tokens: its tokenizer, its chat template, and the tokens that end an
/// answer. Both are read when first asked for.</summary>
public sealed class ChatEncoder
{
    private readonly Lazy<Tokenizer> tokenizer;
    private readonly Lazy<ChatTemplate?> template;
    private readonly Lazy<string?> hash;

    /// <summary>sha256 of a model's tokenizer (its files, settings and special tokens) and of its chat template, for a
    /// run's record; those that it has.</summary>
    public static IEnumerable<KeyValuePair<string, string>> Hashes(string modelFolder)
    {
        var parts = ModelLayout
            .Text.Take(3)
            .Where(name => File.Exists(Path.Combine(modelFolder, name)))
            .Select(name =>
                $"{name}\n{UntrustedFile.ReadAllText(Path.Combine(modelFolder, name), UntrustedFile.Tokenizer)}"
            )
            .ToList();
        if (parts.Count > 0)
            yield return KeyValuePair.Create("tokenizer", Sha256.OfText(string.Join('\n', parts)));
        if (ChatTemplate.SourceOf(modelFolder) is { } template)
            yield return KeyValuePair.Create("template", Sha256.OfText(template));
    }

    /// <summary>Of a model's folder.</summary>
    public ChatEncoder(
        string modelFolder,
        IReadOnlySet<int> endOfTurn,
        TimeProvider? clock = null,
        CancellationToken stop = default
    )
        : this(() => Tokenizer.Load(modelFolder, stop), () => ChatTemplate.Load(modelFolder, clock), endOfTurn) =>
        hash = new(() => HashOf(modelFolder, endOfTurn, clock ?? TimeProvider.System));

    /// <summary>Of parts that have no name; what is made with them is not cached.</summary>
    public ChatEncoder(Func<Tokenizer> tokenizer, Func<ChatTemplate?> template, IReadOnlySet<int> endOfTurn)
    {
        (this.tokenizer, this.template, EndOfTurn) = (new(tokenizer), new(template), endOfTurn);
        hash = new(() => null);
    }

    public Tokenizer Tokenizer => tokenizer.Value;

    public ChatTemplate? Template => template.Value;

    public IReadOnlySet<int> EndOfTurn { get; }

    /// <summary>sha256 of all that the tokens of a text depend on; null when that is not known.</summary>
    internal string? Hash => hash.Value;

    private static string HashOf(string folder, IReadOnlySet<int> endOfTurn, TimeProvider clock)
    {
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var dated = false;
        foreach (var name in ModelLayout.Text.Where(name => File.Exists(ModelLayout.In(folder, name))))
        {
            var bytes = UntrustedFile.ReadAllBytes(ModelLayout.In(folder, name), UntrustedFile.Tokenizer);
            sha.AppendData(Encoding.UTF8.GetBytes($"{name} {bytes.Length}\n"));
            sha.AppendData(bytes);
            dated |= bytes.AsSpan().IndexOf("strftime_now"u8) >= 0;
        }
        sha.AppendData(Encoding.UTF8.GetBytes(string.Join(',', endOfTurn.Order())));
        if (dated)
            // a template that writes the date gives other tokens tomorrow
            sha.AppendData(Encoding.UTF8.GetBytes($"{clock.GetLocalNow():yyyy-MM-dd}"));
        return Convert.ToHexStringLower(sha.GetHashAndReset());
    }
}
