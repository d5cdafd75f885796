using System.IO.MemoryMappedFiles;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>One tensor of a safetensors file: type as spelled there (F32, BF16, …), shape, and where its bytes lie after the header.</summary>
public sealed record StoredTensor(string Name, string Type, long[] Shape, long From, long To);

/// <summary>A safetensors file, memory-mapped: 8 bytes header length, JSON header, raw little-endian data.</summary>
public sealed class SafeTensors : IDisposable
{
    private static readonly Dictionary<string, (ScalarType Type, int Bytes)> types = new()
    {
        ["F64"] = (float64, 8),
        ["F32"] = (float32, 4),
        ["F16"] = (float16, 2),
        ["BF16"] = (bfloat16, 2),
        ["I64"] = (int64, 8),
        ["I32"] = (int32, 4),
        ["I16"] = (int16, 2),
        ["I8"] = (int8, 1),
        ["U8"] = (uint8, 1),
        ["BOOL"] = (@bool, 1),
    };

    private readonly MemoryMappedFile map;
    private readonly MemoryMappedViewAccessor view;
    private readonly long data;

    private SafeTensors(string file, MemoryMappedFile map, MemoryMappedViewAccessor view, long data, IReadOnlyDictionary<string, StoredTensor> tensors) =>
        (File, this.map, this.view, this.data, Tensors) = (file, map, view, data, tensors);

    public string File { get; }

    public IReadOnlyDictionary<string, StoredTensor> Tensors { get; }

    /// <summary>Opens a file and checks that every tensor lies within it; a truncated or malformed one is a fault that says how.</summary>
    public static SafeTensors Open(string file)
    {
        if (!System.IO.File.Exists(file))
            throw new UserFault($"{file} is missing.");
        long size;
        using (var handle = System.IO.File.OpenHandle(file))
            size = RandomAccess.GetLength(handle);                             // of the file, not of a link to it: model caches are made of links
        if (size < 10)
            throw Broken($"{size} bytes, too short for a header");
        var map = MemoryMappedFile.CreateFromFile(file, FileMode.Open, null, 0, MemoryMappedFileAccess.Read);
        var view = map.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
        try
        {
            var length = view.ReadInt64(0);
            if (length < 2 || length > size - 8 || length > 512 << 20)
                throw Broken($"a header of {length} bytes in a file of {size}");
            var text = new byte[length];
            view.ReadArray(8, text, 0, (int)length);
            return new SafeTensors(file, map, view, 8 + length, Header(text, size - 8 - length));
        }
        catch
        {
            view.Dispose();
            map.Dispose();
            throw;
        }

        Dictionary<string, StoredTensor> Header(byte[] text, long available)
        {
            try
            {
                var tensors = new Dictionary<string, StoredTensor>();
                foreach (var (name, node) in JsonNode.Parse(Encoding.UTF8.GetString(text))!.AsObject())
                {
                    if (name == "__metadata__")
                        continue;
                    var type = (string)node!["dtype"]!;
                    var shape = node["shape"]!.AsArray().Select(n => (long)n!).ToArray();
                    var (from, to) = ((long)node["data_offsets"]![0]!, (long)node["data_offsets"]![1]!);
                    if (from < 0 || to < from || to > available)
                        throw Broken($"truncated: \"{name}\" ends at byte {to}, the file holds {available} bytes of data");
                    if (types.TryGetValue(type, out var known) && shape.Aggregate(1L, (a, b) => checked(a * b)) * known.Bytes != to - from)
                        throw Broken($"\"{name}\" {type} [{string.Join(", ", shape)}] does not fill its {to - from} bytes");
                    tensors[name] = new(name, type, shape, from, to);
                }
                return tensors;
            }
            catch (Exception e) when (e is JsonException or InvalidOperationException or NullReferenceException or FormatException or OverflowException or ArgumentException)
            {
                throw Broken($"an unreadable header ({e.Message})");
            }
        }

        UserFault Broken(string how) => new($"{file} is not a whole safetensors file.", found: how, next: "download the file again");
    }

    /// <summary>Reads one tensor into host memory in its stored type.</summary>
    public Tensor Read(string name)
    {
        if (!Tensors.TryGetValue(name, out var stored))
            throw new UserFault($"{File} has no tensor \"{name}\".");
        if (!types.TryGetValue(stored.Type, out var type))
            throw new UserFault($"{File}: \"{name}\" has type {stored.Type}.", found: stored.Type, next: $"use weights in one of {string.Join(", ", types.Keys)}");
        var tensor = empty(stored.Shape, type.Type);
        var bytes = stored.To - stored.From;
        if (bytes == 0)
            return tensor;
        using var stream = map.CreateViewStream(data + stored.From, bytes, MemoryMappedFileAccess.Read);
        tensor.ReadBytesFromStream(stream);
        return tensor;
    }

    /// <summary>Writes tensors in the order given, flushed to disk; the bytes depend on nothing else.</summary>
    /// <param name="file">Where to; written in place, so stage it where a torn file matters.</param>
    /// <param name="tensors">Names and tensors of any device; made contiguous one at a time.</param>
    /// <param name="metadata">The header's __metadata__.</param>
    public static void Write(string file, IReadOnlyList<(string Name, Tensor Tensor)> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        var header = new JsonObject();
        if (metadata is not null)
            header["__metadata__"] = new JsonObject(metadata.Select(pair => KeyValuePair.Create(pair.Key, (JsonNode?)pair.Value)));
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
        {
            using var scope = NewDisposeScope();
            tensor.detach().cpu().contiguous().WriteBytesToStream(stream);
        }
        stream.Flush(flushToDisk: true);
    }

    public void Dispose()
    {
        view.Dispose();
        map.Dispose();
    }
}
