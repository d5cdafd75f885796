using System.Text;

namespace Memopt.Text.Tokenizers;

/// <summary>The 256 printable characters by which byte-level vocabularies spell bytes.</summary>
internal static class ByteAlphabet
{
    private static readonly char[] Letters = new char[256];
    private static readonly Dictionary<char, byte> Values = [];

    static ByteAlphabet()
    {
        var next = 256;
        for (var value = 0; value < 256; value++)
        {
            var printable = value is >= '!' and <= '~' or >= 0xA1 and <= 0xAC or >= 0xAE and <= 0xFF;
            Letters[value] = (char)(printable ? value : next++);
            Values[Letters[value]] = (byte)value;
        }
    }

    public static NormalizedString Encode(NormalizedString text)
    {
        var output = new NormalizedStringBuilder(text.Budget);
        Span<byte> bytes = stackalloc byte[4];
        var i = 0;
        while (i < text.Length)
        {
            var rune = text.RuneAt(i);
            var (from, to) = (text.From(i), text.To(i + rune.Utf16SequenceLength - 1));
            var count = rune.EncodeToUtf8(bytes);
            foreach (var value in bytes[..count])
                output.Append(Letters[value], from, to);
            i += rune.Utf16SequenceLength;
        }
        return output.Build();
    }

    public static string Decode(IEnumerable<string> tokens)
    {
        var bytes = new List<byte>();
        foreach (var token in tokens)
        {
            // A token that is not spelled in the alphabet (an added one) stands for itself.
            if (token.All(Values.ContainsKey))
                bytes.AddRange(token.Select(letter => Values[letter]));
            else
                bytes.AddRange(Encoding.UTF8.GetBytes(token));
        }
        return Encoding.UTF8.GetString([.. bytes]);
    }
}
