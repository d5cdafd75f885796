using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>
/// SentencePiece's compiled map of characters: a double-array trie over UTF-8 whose values point into a list of
/// zero-ended replacements.
/// </summary>
internal sealed class CharactersMap
{
    private const int LongestCluster = 5; // bytes; longer ones are looked up character by character

    private readonly uint[] units;
    private readonly byte[] replacements;

    private CharactersMap(uint[] units, byte[] replacements) => (this.units, this.replacements) = (units, replacements);

    public static CharactersMap? Read(ReadOnlySpan<byte> blob)
    {
        if (blob.IsEmpty)
            return null;
        var size = blob.Length >= 4 ? BinaryPrimitives.ReadUInt32LittleEndian(blob) : uint.MaxValue;
        if (size > blob.Length - 4 || size % 4 != 0)
            throw new UserFault(
                "tokenizer.json is damaged: its precompiled_charsmap cannot be read.",
                $"a table of {size} bytes in {blob.Length}"
            );
        var units = new uint[size / 4];
        for (var i = 0; i < units.Length; i++)
            units[i] = BinaryPrimitives.ReadUInt32LittleEndian(blob[(4 + 4 * i)..]);
        return new(units, blob[(4 + (int)size)..].ToArray());
    }

    /// <summary>Whole clusters of characters first, as the reference does, then single characters.</summary>
    public NormalizedString Normalize(NormalizedString text)
    {
        var output = new NormalizedStringBuilder(text.Budget);
        var changed = false;
        var at = 0;
        while (at < text.Length)
        {
            var length = StringInfo.GetNextTextElementLength(text.Text[at..]);
            if (!TryReplace(at, length))
                ByCharacter(at, at + length);
            at += length;
        }
        return changed ? output.Build() : text;

        void ByCharacter(int at, int end)
        {
            while (at < end)
            {
                var length = text.RuneAt(at).Utf16SequenceLength;
                if (!TryReplace(at, length))
                    output.Append(text, at, length);
                at += length;
            }
        }

        bool TryReplace(int at, int length)
        {
            Span<byte> bytes = stackalloc byte[LongestCluster];
            if (
                !Encoding.UTF8.TryGetBytes(text.Text.Slice(at, length), bytes, out var count)
                || Find(bytes[..count]) is not { } replacement
            )
                return false;
            output.Append(replacement, text.From(at), text.To(at + length - 1));
            return changed = true;
        }
    }

    /// <summary>The replacement of the shortest entry that the bytes begin with.</summary>
    private string? Find(ReadOnlySpan<byte> bytes)
    {
        var node = Offset(Unit(0));
        foreach (var value in bytes)
        {
            if (value == 0)
                return null;
            node ^= value;
            var unit = Unit(node);
            if ((unit & 0x800000FF) != value)
                return null;
            node ^= Offset(unit);
            if ((unit >> 8 & 1) == 1)
                return Replacement((int)(Unit(node) & 0x7FFFFFFF));
        }
        return null;
    }

    private uint Unit(uint at) => at < units.Length ? units[at] : 0xFFFFFFFF;

    private static uint Offset(uint unit) => unit >> 10 << (int)((unit & 1u << 9) >> 6);

    private string Replacement(int at)
    {
        var rest = replacements.AsSpan(Math.Min(at, replacements.Length));
        return Encoding.UTF8.GetString(rest.IndexOf((byte)0) is >= 0 and var end ? rest[..end] : rest);
    }
}
