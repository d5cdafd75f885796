using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Trainer.Native;
using Microsoft.Win32.SafeHandles;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Weights;

/// <summary>A safetensors file: 8 bytes header length, JSON header, raw little-endian data.</summary>
internal sealed class SafeTensors : IDisposable
{
    /// <summary>The types that libtorch has, and the bytes of a number, by their names in headers.</summary>
    internal static readonly IReadOnlyDictionary<string, (ScalarType Type, int Bytes)> Types = new Dictionary<
        string,
        (ScalarType Type, int Bytes)
    >
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

    private const int WriteBytes = 32 << 20;

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
            var header = SafeTensorsHeader.Read(file, handle);
            return new SafeTensors(file, handle, header.Bytes, header.Tensors, header.Metadata);
        }
        catch
        {
            handle.Dispose();
            throw;
        }
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

    /// <summary>Reads some elements of a tensor into host memory: (count) in its stored type.</summary>
    /// <param name="name">The tensor.</param>
    /// <param name="from">The first element.</param>
    /// <param name="count">How many.</param>
    public Tensor Read(string name, long from, long count)
    {
        var stored = Find(name);
        var tensor = empty([count], TypeOf(stored));
        ArgumentOutOfRangeException.ThrowIfNegative(from);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((from + count) * tensor.element_size(), stored.To - stored.From);
        if (count > 0)
            Read(stored, from * tensor.element_size(), count * tensor.element_size(), Aten.DataPointer(tensor));
        return tensor;
    }

    /// <summary>What the header says of a tensor.</summary>
    public StoredTensor Find(string name) =>
        Tensors.TryGetValue(name, out var stored) ? stored : throw new UserFault($"{File} has no tensor \"{name}\".");

    /// <summary>Type of a tensor's numbers, where it is one that libtorch has.</summary>
    public ScalarType TypeOf(StoredTensor stored) =>
        Types.TryGetValue(stored.Type, out var type)
            ? type.Type
            : throw new UserFault(
                $"{File}: \"{stored.Name}\" has type {stored.Type}.",
                found: stored.Type,
                next: $"use weights in one of {string.Join(", ", Types.Keys)}"
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
            var type = Types.First(pair => pair.Value.Type == tensor.dtype);
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
