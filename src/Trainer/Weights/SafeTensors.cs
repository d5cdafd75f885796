using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Trainer.Native;
using Microsoft.Win32.SafeHandles;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>One tensor of a safetensors file: type as spelled there (F32, BF16, …), shape, and where its bytes lie
/// after the header.</summary>
internal sealed record StoredTensor(string Name, string Type, long[] Shape, long From, long To);

/// <summary>A safetensors file: 8 bytes header length, JSON header, raw little-endian data.</summary>
internal sealed class SafeTensors : IDisposable
{
    private static readonly Dictionary<string, (ScalarType Type, int Bytes)> types = new()
    {
        // Not torch.float64 and its like: a header is read where libtorch is not loaded.
        ["F64"] = (ScalarType.Float64, 8),
        ["F32"] = (ScalarType.Float32, 4),
        ["F16"] = (ScalarType.Float16, 2),
        ["BF16"] = (ScalarType.BFloat16, 2),
        ["I64"] = (ScalarType.Int64, 8),
        ["I32"] = (ScalarType.Int32, 4),
        ["I16"] = (ScalarType.Int16, 2),
        ["I8"] = (ScalarType.Int8, 1),
        ["U8"] = (ScalarType.Byte, 1),
        ["BOOL"] = (ScalarType.Bool, 1),
    };

    private const int WriteBytes = 32 << 20,
        MostDimensions = 16;
    private const long LongestHeader = 100_000_000; // the reference's limit

    private readonly SafeFileHandle handle;
    private readonly long data;

    private SafeTensors(
        string file,
        SafeFileHandle handle,
        long data,
        IReadOnlyDictionary<string, StoredTensor> tensors,
        IReadOnlyDictionary<string, string> metadata
    ) => (File, this.handle, this.data, Tensors, Metadata) = (file, handle, data, tensors, metadata);

    public string File { get; }

    public IReadOnlyDictionary<string, StoredTensor> Tensors { get; }

    /// <summary>What the header's __metadata__ says.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>Opens a file and checks that every tensor lies within it; a truncated or malformed one is a fault that
    /// says how.</summary>
    public static SafeTensors Open(string file)
    {
        if (!System.IO.File.Exists(file))
            throw new UserFault($"{file} is missing.");
        UntrustedFile.Check(file);
        var handle = System.IO.File.OpenHandle(file);
        try
        {
            // of the file, not of a link to it: model caches are made of links
            var size = RandomAccess.GetLength(handle);
            if (size < 10)
                throw Broken($"{size} bytes, too short for a header");
            var head = new byte[8];
            RandomAccess.Read(handle, head, 0);
            var length = BitConverter.ToInt64(head);
            if (length < 2 || length > size - 8 || length > LongestHeader)
                throw Broken($"a header of {length} bytes in a file of {size}");
            var text = new byte[length];
            var at = 0;
            while (at < text.Length)
                at += RandomAccess.Read(handle, text.AsSpan(at), 8 + at) is > 0 and var read
                    ? read
                    : throw Broken("truncated while it was read");
            var metadata = new Dictionary<string, string>();
            return new SafeTensors(file, handle, 8 + length, Header(text, size - 8 - length, metadata), metadata);
        }
        catch
        {
            handle.Dispose();
            throw;
        }

        Dictionary<string, StoredTensor> Header(byte[] text, long available, Dictionary<string, string> metadata)
        {
            try
            {
                var tensors = new Dictionary<string, StoredTensor>();
                var reader = new Utf8JsonReader(text);
                if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
                    throw Broken("a header that is not an object");
                while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
                {
                    var name = reader.GetString()!;
                    reader.Read();
                    using var entry = JsonDocument.ParseValue(ref reader); // one at a time: a header may have a million
                    var node = entry.RootElement;
                    if (name == "__metadata__")
                    {
                        foreach (var value in node.EnumerateObject())
                            metadata[value.Name] = value.Value.GetString() ?? "";
                        continue;
                    }
                    var type = node.GetProperty("dtype").GetString()!;
                    var shape = node.GetProperty("shape").EnumerateArray().Select(n => n.GetInt64()).ToArray();
                    var (from, to) = (
                        node.GetProperty("data_offsets")[0].GetInt64(),
                        node.GetProperty("data_offsets")[1].GetInt64()
                    );
                    if (shape.Length > MostDimensions || shape.Any(n => n < 0))
                        throw Broken($"\"{name}\" of shape [{string.Join(", ", shape)}]");
                    if (from < 0 || to < from || to > available)
                        throw Broken(
                            $"truncated: \"{name}\" ends at byte {to}, the file holds {available} bytes of data"
                        );
                    if (
                        types.TryGetValue(type, out var known)
                        && shape.Aggregate(1L, (a, b) => checked(a * b)) * known.Bytes != to - from
                    )
                        throw Broken(
                            $"\"{name}\" {type} [{string.Join(", ", shape)}] does not fill its {to - from} bytes"
                        );
                    if (!tensors.TryAdd(name, new(name, type, shape, from, to)))
                        throw Broken($"\"{name}\" stands there twice");
                }
                reader.Read();
                // As the reference does: a few bytes that stand for a thousand tensors would be read a thousand times.
                var order = tensors.Values.OrderBy(tensor => tensor.From).ThenBy(tensor => tensor.To).ToList();
                if (
                    order.Zip(order.Skip(1)).FirstOrDefault(pair => pair.First.To > pair.Second.From) is
                    ({ } first, { } second)
                )
                    throw Broken($"\"{first.Name}\" and \"{second.Name}\" share bytes");
                return tensors;
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

        UserFault Broken(string how) =>
            new($"{file} is not a whole safetensors file.", found: how, next: "download the file again");
    }

    /// <summary>Reads one tensor into host memory in its stored type.</summary>
    public Tensor Read(string name)
    {
        var stored = Find(name);
        var tensor = empty(stored.Shape, TypeOf(stored));
        if (stored.To > stored.From)
            Read(stored, 0, stored.To - stored.From, Aten.DataPointer(tensor));
        return tensor;
    }

    /// <summary>What the header says of a tensor.</summary>
    public StoredTensor Find(string name) =>
        Tensors.TryGetValue(name, out var stored) ? stored : throw new UserFault($"{File} has no tensor \"{name}\".");

    /// <summary>Type of a tensor's numbers, where it is one that libtorch has.</summary>
    public ScalarType TypeOf(StoredTensor stored) =>
        types.TryGetValue(stored.Type, out var type)
            ? type.Type
            : throw new UserFault(
                $"{File}: \"{stored.Name}\" has type {stored.Type}.",
                found: stored.Type,
                next: $"use weights in one of {string.Join(", ", types.Keys)}"
            );

    /// <summary>Reads some bytes of a tensor to an address, several parts at once.</summary>
    internal void Read(StoredTensor stored, long from, long count, nint to) =>
        FileRead.Into(handle, data + stored.From + from, count, to, $"{File}: \"{stored.Name}\"");

    /// <summary>Writes tensors in the order given, flushed to disk; the bytes depend on nothing else.</summary>
    /// <param name="file">Where to; written in place, so stage it where a torn file matters.</param>
    /// <param name="tensors">Names and tensors of any device; made contiguous one at a time.</param>
    /// <param name="metadata">The header's __metadata__.</param>
    public static void Write(
        string file,
        IReadOnlyList<(string Name, Tensor Tensor)> tensors,
        IReadOnlyDictionary<string, string>? metadata = null
    )
    {
        var header = new JsonObject();
        if (metadata is not null)
            header["__metadata__"] = new JsonObject(
                metadata.Select(pair => KeyValuePair.Create(pair.Key, (JsonNode?)pair.Value))
            );
        long at = 0;
        foreach (var (name, tensor) in tensors)
        {
            var type = types.First(pair => pair.Value.Type == tensor.dtype);
            var bytes = tensor.numel() * type.Value.Bytes;
            header[name] = new JsonObject
            {
                ["dtype"] = type.Key,
                ["shape"] = new JsonArray([.. tensor.shape.Select(n => (JsonNode)n)]),
                ["data_offsets"] = new JsonArray(at, at + bytes),
            };
            at += bytes;
        }
        var text = Encoding.UTF8.GetBytes(header.ToJsonString());
        var padded = (text.Length + 7) / 8 * 8;
        using var stream = new FileStream(file, FileMode.Create, FileAccess.Write, FileShare.None, 1 << 20);
        stream.Write(BitConverter.GetBytes((long)padded));
        stream.Write(text);
        stream.Write(Encoding.ASCII.GetBytes(new string(' ', padded - text.Length)));
        foreach (var (_, tensor) in tensors)
            WriteData(stream, tensor);
        stream.Flush(flushToDisk: true);
    }

    /// <summary>Writes a tensor's bytes a piece at a time: the host never holds a large one again.</summary>
    internal static void WriteData(Stream stream, Tensor tensor)
    {
        using var scope = NewDisposeScope();
        var flat = tensor.detach().contiguous().view(-1);
        var piece = WriteBytes / tensor.element_size();
        for (long at = 0; at < flat.shape[0]; at += piece)
        {
            using var inner = NewDisposeScope();
            flat.narrow(0, at, Math.Min(piece, flat.shape[0] - at)).cpu().WriteBytesToStream(stream);
        }
    }

    public void Dispose() => handle.Dispose();
}
