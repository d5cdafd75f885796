using System.Text;

namespace Memopt.Fuzz;

/// <summary>Changes bytes: a few places, or the shape of what they say.</summary>
internal static class Mutator
{
    private const int Longest = 4 << 20;

    private static readonly string[] numbers =
    [
        "0",
        "-1",
        "1e999",
        "-0.0",
        "NaN",
        "null",
        "2147483647",
        "2147483648",
        "-2147483649",
        "9223372036854775807",
        "9223372036854775808",
        "1e-400",
        "0.1",
        "99999999999999999999999",
        "1" + new string('0', 400),
        "true",
    ];

    private static readonly string[] parts =
    [
        "\0",
        "\u00ff",
        "\ufeff",
        "\ud83d\ude00",
        "\\ud800",
        "\\udc00x",
        "\\u0000",
        "\u001b[31m",
        "\r\n",
        "\"",
        "'",
        "{",
        "}",
        "[",
        "]",
        "[[",
        "{\"a\":",
        ",",
        ":",
        "../../outside/x",
        "/../x",
        "..\\x",
        "//",
        "%00",
        "&",
        "<<",
        "*",
        "?",
        "\t",
        "#",
        "null",
        "\"\"",
        "{}",
        "[]",
        "~",
        "$",
        "(",
        ")",
        "(a+)+$",
        "{1,99999}",
    ];

    /// <summary>A seed with one to six changes.</summary>
    /// <param name="random">What is drawn from.</param>
    /// <param name="seeds">What is changed, and spliced.</param>
    /// <param name="words">Words of the format.</param>
    public static byte[] Change(Random random, IReadOnlyList<byte[]> seeds, params string[] words)
    {
        var bytes = seeds[random.Next(seeds.Count)];
        for (var changes = random.Next(1, 7); changes > 0 && bytes.Length <= Longest; changes--)
            bytes = Once(random, bytes, seeds, words);
        return bytes;
    }

    private static byte[] Once(Random random, byte[] bytes, IReadOnlyList<byte[]> seeds, string[] words)
    {
        var (at, length) = (random.Next(bytes.Length + 1), Length(random));
        var end = Math.Min(bytes.Length, at + length);
        switch (random.Next(13))
        {
            case 0:
                return Splice(bytes, at, end, []);
            case 1:
                return Splice(bytes, at, at, bytes[at..end]);
            case 2:
                var noise = new byte[Math.Min(length, 64)];
                random.NextBytes(noise);
                return Splice(bytes, at, Math.Min(bytes.Length, at + noise.Length), noise);
            case 3 when at < bytes.Length:
                bytes = [.. bytes];
                bytes[at] ^= (byte)(1 << random.Next(8));
                return bytes;
            case 4:
                return bytes[..at];
            case 5 when Number(bytes, at) is var (from, to):
                return Splice(bytes, from, to, Encoding.UTF8.GetBytes(numbers[random.Next(numbers.Length)]));
            case 6 when bytes.Length >= 8:
                // A length or an offset of a binary format.
                bytes = [.. bytes];
                BitConverter.TryWriteBytes(
                    bytes.AsSpan(Math.Min(at, bytes.Length - 8)),
                    random.Next(4) switch
                    {
                        0 => -1L,
                        1 => int.MaxValue,
                        2 => long.MaxValue,
                        _ => random.NextInt64(),
                    }
                );
                return bytes;
            case 7 when random.Next(4) == 0:
                return Splice(bytes, at, at, Deep(random));
            case 8 when random.Next(4) == 0:
                return Splice(bytes, at, at, Many(random, bytes[at..Math.Min(end, at + 64)]));
            case 9:
                var other = seeds[random.Next(seeds.Count)];
                var start = random.Next(other.Length + 1);
                return Splice(bytes, at, end, other[start..Math.Min(other.Length, start + length)]);
            case 10 or 11 when words.Length > 0:
                return Splice(
                    bytes,
                    at,
                    random.Next(2) == 0 ? at : end,
                    Encoding.UTF8.GetBytes(words[random.Next(words.Length)])
                );
            default:
                return Splice(
                    bytes,
                    at,
                    random.Next(2) == 0 ? at : Math.Min(bytes.Length, at + 1),
                    Encoding.UTF8.GetBytes(parts[random.Next(parts.Length)])
                );
        }
    }

    private static byte[] Splice(byte[] bytes, int from, int to, byte[] with) =>
        [.. bytes[..from], .. with, .. bytes[to..]];

    private static int Length(Random random) =>
        random.Next(4) switch
        {
            0 => 1,
            1 => random.Next(8),
            2 => random.Next(64),
            _ => random.Next(2048),
        };

    /// <summary>Many of what opens, or a chain of what binds to the left.</summary>
    private static byte[] Deep(Random random)
    {
        string[] openers =
        [
            "[",
            "{\"a\":",
            "(",
            "((",
            "[[[",
            "not ",
            "-",
            "{{",
            "a.",
            "x|",
            "if a ",
            "[^[",
            "(?:",
            "- ",
            "<a>",
            "{a: ",
            "&a [*a,",
        ];
        return Encoding.UTF8.GetBytes(
            string.Concat(Enumerable.Repeat(openers[random.Next(openers.Length)], Count(random)))
        );
    }

    private static byte[] Many(Random random, byte[] unit)
    {
        if (unit.Length == 0)
            unit = [(byte)random.Next(32, 127)];
        return [.. Enumerable.Repeat(unit, Math.Min(Count(random), (1 << 20) / unit.Length)).SelectMany(one => one)];
    }

    private static int Count(Random random) =>
        random.Next(4) switch
        {
            0 => 60,
            1 => 1000,
            2 => 20_000,
            _ => 100_000,
        };

    private static (int From, int To)? Number(byte[] bytes, int near)
    {
        var from = near;
        while (from < bytes.Length && !char.IsAsciiDigit((char)bytes[from]))
            from++;
        if (from == bytes.Length)
            return null;
        var to = from;
        while (to < bytes.Length && (char.IsAsciiDigit((char)bytes[to]) || bytes[to] is (byte)'.' or (byte)'e'))
            to++;
        return (from, to);
    }
}
