using System.Text.Json;
using Memopt.Core;
using Microsoft.Win32.SafeHandles;

namespace Memopt.Trainer.Weights;

/// <summary>The header of a safetensors file, checked against the file's size.</summary>
internal sealed class SafeTensorsHeader
{
    private const int LengthBytes = 8,
        MostDimensions = 16;
    private const long Longest = 100_000_000; // the reference's limit

    private readonly string file;
    private readonly long available; // bytes of data behind the header
    private readonly Dictionary<string, StoredTensor> tensors = [];
    private readonly Dictionary<string, string> metadata = [];

    private SafeTensorsHeader(string file, long length, long size) =>
        (this.file, Bytes, available) = (file, LengthBytes + length, size - LengthBytes - length);

    /// <summary>Bytes before the data.</summary>
    public long Bytes { get; }

    public IReadOnlyDictionary<string, StoredTensor> Tensors => tensors;

    /// <summary>What __metadata__ says.</summary>
    public IReadOnlyDictionary<string, string> Metadata => metadata;

    /// <exception cref="UserFault">The file is truncated or malformed; it says how.</exception>
    public static SafeTensorsHeader Read(string file, SafeFileHandle handle)
    {
        // of the file, not of a link to it: model caches are made of links
        var size = RandomAccess.GetLength(handle);
        if (size < 10)
            throw Broken(file, $"{size} bytes, too short for a header");
        var head = new byte[LengthBytes];
        RandomAccess.Read(handle, head, 0);
        var length = BitConverter.ToInt64(head);
        if (length < 2 || length > size - LengthBytes || length > Longest)
            throw Broken(file, $"a header of {length} bytes in a file of {size}");
        var text = new byte[length];
        var at = 0;
        while (at < text.Length)
            at += RandomAccess.Read(handle, text.AsSpan(at), LengthBytes + at) is > 0 and var read
                ? read
                : throw Broken(file, "truncated while it was read");
        var header = new SafeTensorsHeader(file, length, size);
        header.Parse(text);
        return header;
    }

    private void Parse(byte[] text)
    {
        try
        {
            var reader = new Utf8JsonReader(text);
            if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
                throw Broken("a header that is not an object");
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                var name = reader.GetString()!;
                reader.Read();
                using var entry = JsonDocument.ParseValue(ref reader); // one at a time: a header may have a million
                if (name == "__metadata__")
                    AddMetadata(entry.RootElement);
                else
                    AddTensor(name, entry.RootElement);
            }
            reader.Read();
            CheckOverlaps();
        }
        catch (Exception e)
            when (e
                    is JsonException
                        or InvalidOperationException
                        or KeyNotFoundException
                        or IndexOutOfRangeException
                        or NullReferenceException
                        or FormatException
                        or OverflowException
                        or ArgumentException
            )
        {
            throw Broken($"an unreadable header ({e.Message})");
        }
    }

    private void AddMetadata(JsonElement node)
    {
        foreach (var value in node.EnumerateObject())
            metadata[value.Name] = value.Value.GetString() ?? "";
    }

    private void AddTensor(string name, JsonElement node)
    {
        var type = node.GetProperty("dtype").GetString()!;
        var shape = node.GetProperty("shape").EnumerateArray().Select(n => n.GetInt64()).ToArray();
        var offsets = node.GetProperty("data_offsets");
        var (from, to) = (offsets[0].GetInt64(), offsets[1].GetInt64());
        if (shape.Length > MostDimensions || shape.Any(n => n < 0))
            throw Broken($"\"{name}\" of shape [{string.Join(", ", shape)}]");
        if (from < 0 || to < from || to > available)
            throw Broken($"truncated: \"{name}\" ends at byte {to}, the file holds {available} bytes of data");
        if (
            SafeTensors.Types.TryGetValue(type, out var known)
            && shape.Aggregate(1L, (a, b) => checked(a * b)) * known.Bytes != to - from
        )
            throw Broken($"\"{name}\" {type} [{string.Join(", ", shape)}] does not fill its {to - from} bytes");
        if (!tensors.TryAdd(name, new(name, type, shape, from, to)))
            throw Broken($"\"{name}\" stands there twice");
    }

    /// <summary>As the reference does: a few bytes that stand for a thousand tensors would be read a thousand
    /// times.</summary>
    private void CheckOverlaps()
    {
        var order = tensors.Values.OrderBy(tensor => tensor.From).ThenBy(tensor => tensor.To).ToList();
        if (
            order.Zip(order.Skip(1)).FirstOrDefault(pair => pair.First.To > pair.Second.From) is ({ } first, { } second)
        )
            throw Broken($"\"{first.Name}\" and \"{second.Name}\" share bytes");
    }

    private UserFault Broken(string how) => Broken(file, how);

    private static UserFault Broken(string file, string how) =>
        new($"{file} is not a whole safetensors file.", found: how, next: "download the file again");
}
