namespace Memopt.Trainer.Data.Formats;

/// <summary>
/// Reads Thrift's compact protocol and refuses what differs from a schema or reaches over the end: Parquet.Net reads
/// on without end there. Source: the Thrift compact protocol specification (apache/thrift, doc/specs).
/// </summary>
internal ref struct ThriftReader(ReadOnlySpan<byte> bytes, ThriftSchema schema)
{
    private const int Deepest = 32,
        LongestVarint = 10;

    // The types of the protocol that are named here; 4, 5 and 6 are whole numbers of 16, 32 and 64 bits.
    private const int Stop = 0,
        True = 1,
        False = 2,
        Byte = 3,
        Short = 4,
        Long = 6,
        Double = 7,
        Binary = 8,
        List = 9,
        Struct = 12;

    private readonly ReadOnlySpan<byte> bytes = bytes;

    /// <summary>Bytes that have been read.</summary>
    public int Position { get; private set; }

    /// <summary>Reads a struct; of its fields the whole numbers are given by their path, "5.1" for the first of the
    /// fifth.</summary>
    /// <exception cref="InvalidDataException">The bytes are no such struct.</exception>
    /// <exception cref="EndOfStreamException">The bytes end within the struct.</exception>
    public void Read(string name, Dictionary<string, long>? numbers = null) => ReadStruct(name, numbers, "", 0);

    private void ReadStruct(string name, Dictionary<string, long>? numbers, string path, int depth)
    {
        if (depth > Deepest)
            throw new InvalidDataException("its metadata is nested too deeply");
        var number = 0;
        while (true)
        {
            var head = Next();
            if (head == Stop)
                return;
            number = head >> 4 is var delta and not 0 ? number + delta : (short)ReadNumber();
            var type = head & 15;
            if (schema.Field(name, number) is { } expected)
                ReadValue(type, expected, numbers, $"{path}{number}", depth, inList: false);
            else
                Skip(type, name, number);
        }
    }

    private void ReadValue(
        int type,
        string expected,
        Dictionary<string, long>? numbers,
        string path,
        int depth,
        bool inList
    )
    {
        switch (expected)
        {
            case "i" when type is >= Short and <= Long:
                var number = ReadNumber();
                if (numbers is not null)
                    numbers[path] = number;
                break;
            case "t" when type is True or False:
            case "y" when type == Byte:
            case "d" when type == Double:
            case "b" when type == Binary:
                SkipScalar(type, inList);
                break;
            case ['[', ..] when type == List:
                var (count, of) = ReadListHead();
                for (var i = 0; i < count; i++)
                    ReadValue(of, expected[1..], null, path, depth, inList: true);
                break;
            case { Length: > 1 } when type == Struct && expected[0] != '[':
                ReadStruct(expected, numbers, $"{path}.", depth + 1);
                break;
            default:
                throw new InvalidDataException($"its metadata has a field {path} of a type that does not belong there");
        }
    }

    // Only what Parquet.Net skips correctly: scalars, and lists of scalars other than true and false.
    private void Skip(int type, string name, int number)
    {
        if (SkipScalar(type, inList: false))
            return;
        var (count, of) = type == List ? ReadListHead() : default;
        if (of is < Byte or > Binary)
            throw new InvalidDataException($"its metadata has a field {number} of {name} that is not read here");
        for (var i = 0; i < count; i++)
            SkipScalar(of, inList: true);
    }

    // False, and nothing read, for a list, a struct or what is no type.
    private bool SkipScalar(int type, bool inList)
    {
        switch (type)
        {
            case True or False:
                if (inList)
                    Next();
                return true;
            case Byte:
                Next();
                return true;
            case >= Short and <= Long:
                ReadNumber();
                return true;
            case Double:
                Take(sizeof(double));
                return true;
            case Binary:
                Take(ReadVarint());
                return true;
            default:
                return false;
        }
    }

    private (int Count, int Type) ReadListHead()
    {
        var head = Next();
        var count = head >> 4 is var few and not 15 ? (ulong)few : ReadVarint();
        // Every entry takes one byte at least.
        return count <= (ulong)(bytes.Length - Position) ? ((int)count, head & 15) : throw Ended;
    }

    private long ReadNumber()
    {
        var value = ReadVarint();
        return (long)(value >> 1) ^ -(long)(value & 1); // zigzag
    }

    private ulong ReadVarint()
    {
        ulong result = 0;
        for (var i = 0; i < LongestVarint; i++)
        {
            var part = Next();
            result |= (ulong)(part & 0x7F) << (7 * i);
            if (part < 0x80)
                return result;
        }
        throw new InvalidDataException("its metadata has a number that is too long");
    }

    private int Next() => Position < bytes.Length ? bytes[Position++] : throw Ended;

    private void Take(ulong count) =>
        Position = count <= (ulong)(bytes.Length - Position) ? Position + (int)count : throw Ended;

    private static EndOfStreamException Ended => new("its metadata ends early");
}
