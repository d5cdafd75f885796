using Memopt.Core;
using Memopt.Trainer.Native;

namespace Memopt.Trainer.Memory;

/// <summary>Layers in a file, which is removed when it is closed.</summary>
internal sealed class FileStore : LayerStore
{
    private const int Pieces = 4,
        Piece = 32 << 20;

    private readonly FileStream file;
    private readonly PinnedRing? pieces;
    private readonly Cuda.Stream? copies;
    private readonly Cuda.Event? queued;
    private readonly List<(long Offset, long Bytes)> layers = [];

    /// <param name="path">Of the file, made here.</param>
    /// <param name="cuda">Whether the layers are computed on a GPU.</param>
    public FileStore(string path, bool cuda)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(path))!);
        file = new FileStream(
            path,
            new FileStreamOptions
            {
                Mode = FileMode.Create,
                Access = FileAccess.ReadWrite,
                BufferSize = 0,
                Options = FileOptions.DeleteOnClose,
            }
        );
        if (cuda)
            (pieces, copies, queued) = (new(Pieces, Piece), new(), new());
    }

    public override int Add(long bytes)
    {
        layers.Add((file.Length, bytes));
        file.SetLength(file.Length + bytes);
        return layers.Count - 1;
    }

    public override void RemoveLast()
    {
        file.SetLength(layers[^1].Offset);
        layers.RemoveAt(layers.Count - 1);
    }

    public override void Write(int layer, long offset, nint from, long count)
    {
        for (long at = 0; at < count; at += Piece)
        {
            var (bytes, address) = (Math.Min(Piece, count - at), from + (nint)at);
            if (copies is not null)
            {
                var piece = pieces!.Next();
                copies.WaitForCompute(queued!);
                copies.ToHost(piece.Address, address, bytes);
                copies.Wait();
                address = piece.Address;
            }
            Write(layers[layer].Offset + offset + at, address, bytes);
        }
    }

    public override void Read(int layer, nint to, Cuda.Stream? copies)
    {
        var (offset, total) = layers[layer];
        if (copies is null)
        {
            FileRead.Into(file.SafeFileHandle, offset, total, to, file.Name);
            return;
        }
        for (long at = 0; at < total; at += Piece)
        {
            var count = Math.Min(Piece, total - at);
            var piece = pieces!.Next();
            FileRead.Into(file.SafeFileHandle, offset + at, count, piece.Address, file.Name);
            copies.ToDevice(to + (nint)at, piece.Address, count);
            copies.Record(piece.Copied);
        }
    }

    public override void Dispose()
    {
        copies?.Dispose();
        queued?.Dispose();
        pieces?.Dispose();
        file.Dispose();
    }

    private unsafe void Write(long offset, nint from, long count)
    {
        try
        {
            RandomAccess.Write(file.SafeFileHandle, new ReadOnlySpan<byte>((void*)from, (int)count), offset);
        }
        catch (IOException e)
        {
            throw new UserFault(
                $"The streamed weights cannot be written to {file.Name}.",
                found: e.Message,
                next: "free some space there, or give the run more host memory (memory.hostBudgetGiB)",
                inner: e
            )
            {
                Failed = true,
            };
        }
    }
}
