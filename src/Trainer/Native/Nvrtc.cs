using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Memopt.Core;

namespace Memopt.Trainer.Native;

/// <summary>NVIDIA's run-time compiler, which comes with every CUDA build of libtorch: CUDA C++ → device code for one
/// card, kept on disk. The kept files need no lock: each is written under its own name, flushed, and renamed into
/// place, and carries the hash of what it holds.
/// </summary>
internal sealed unsafe class Nvrtc
{
    private static readonly string[] names = OperatingSystem.IsWindows()
        ? ["nvrtc64_*.dll"]
        : ["libnvrtc.so*", "libnvrtc-*.so*"];

    private readonly delegate* unmanaged<nint*, byte*, byte*, int, byte**, byte**, int> create;
    private readonly delegate* unmanaged<nint, int, byte**, int> compile;
    private readonly delegate* unmanaged<nint, nuint*, int> logSize,
        codeSize;
    private readonly delegate* unmanaged<nint, byte*, int> log,
        code;
    private readonly delegate* unmanaged<nint*, int> destroy;
    private readonly string cache;
    private readonly int[] cards;

    private Nvrtc(string file, nint library, string cache)
    {
        (File, this.cache) = (file, cache);
        nint Export(string name) => NativeLibrary.GetExport(library, "nvrtc" + name);
        create = (delegate* unmanaged<nint*, byte*, byte*, int, byte**, byte**, int>)Export("CreateProgram");
        compile = (delegate* unmanaged<nint, int, byte**, int>)Export("CompileProgram");
        logSize = (delegate* unmanaged<nint, nuint*, int>)Export("GetProgramLogSize");
        log = (delegate* unmanaged<nint, byte*, int>)Export("GetProgramLog");
        codeSize = (delegate* unmanaged<nint, nuint*, int>)Export("GetCUBINSize");
        code = (delegate* unmanaged<nint, byte*, int>)Export("GetCUBIN");
        destroy = (delegate* unmanaged<nint*, int>)Export("DestroyProgram");
        int count;
        ((delegate* unmanaged<int*, int>)Export("GetNumSupportedArchs"))(&count);
        cards = new int[count];
        fixed (int* first = cards)
            ((delegate* unmanaged<int*, int>)Export("GetSupportedArchs"))(first);
        int major,
            minor;
        ((delegate* unmanaged<int*, int*, int>)Export("Version"))(&major, &minor);
        Version = new(major, minor);
    }

    /// <summary>The library that was loaded.</summary>
    public string File { get; }

    public Version Version { get; }

    /// <summary>Whether it compiles for a card: an older compiler does not know newer ones.</summary>
    /// <param name="capability">75 for sm_75.</param>
    public bool Supports(int capability) => cards.Contains(capability);

    /// <summary>Times a program had to be compiled rather than read from the cache.</summary>
    public int Compiled { get; private set; }

    /// <summary>Finds and loads the compiler beside a libtorch: in its folder, or in the packages that a Python
    /// installation keeps it in.</summary>
    /// <param name="libtorch">Folder of libtorch's libraries.</param>
    /// <param name="cache">Folder for compiled code.</param>
    /// <returns>null when there is none.</returns>
    public static Nvrtc? Find(string libtorch, string cache)
    {
        var packages = Path.GetFullPath(Path.Combine(libtorch, "..", "..", "nvidia"));
        var folders = new[] { libtorch }.Concat(
            Directory.Exists(packages)
                ? Directory
                    .EnumerateDirectories(packages)
                    .SelectMany(package => new[] { Path.Combine(package, "lib"), Path.Combine(package, "bin") })
                : []
        );
        foreach (var folder in folders.Where(Directory.Exists))
        {
            var found = names
                .SelectMany(name => Directory.EnumerateFiles(folder, name))
                .Where(file => !Named(file, ".alt.") && !Named(file, "static"))
                .ToList();
            if (found.FirstOrDefault(file => !Named(file, "builtins")) is not { } library)
                continue;
            // The compiler looks its built-in headers up by name alone; loaded first, they are found wherever they lie.
            foreach (var builtins in found.Where(file => Named(file, "builtins")))
                NativeLibrary.TryLoad(builtins, out _);
            if (NativeLibrary.TryLoad(library, out var handle))
                return new(library, handle, cache);
        }
        return null;

        static bool Named(string file, string part) => Path.GetFileName(file).Contains(part, StringComparison.Ordinal);
    }

    /// <summary>Device code of a program for a card, from the cache where it was compiled before.</summary>
    /// <param name="name">Shown in messages.</param>
    /// <param name="source">CUDA C++ that includes nothing.</param>
    /// <param name="capability">The card: 75 for sm_75.</param>
    public byte[] Compile(string name, string source, int capability)
    {
        string[] options = [$"--gpu-architecture=sm_{capability}", "--std=c++17", "-default-device"];
        var key = Sha256.OfText(string.Join('\n', [Version.ToString(), .. options, source]))[..32];
        var file = Path.Combine(
            cache,
            "kernels",
            $"{Path.GetFileNameWithoutExtension(name)}-sm_{capability}-{key}.cubin"
        );
        if (Read(file) is { } kept)
            return kept;
        var image = Compile(name, source, options);
        Compiled++;
        Write(file, image);
        return image;
    }

    /// <summary>Kept code, if the file is whole: 32 bytes of sha256, then what they are the hash of.</summary>
    internal static byte[]? Read(string file)
    {
        try
        {
            var bytes = System.IO.File.ReadAllBytes(file);
            return bytes.Length > 32 && SHA256.HashData(bytes.AsSpan(32)).AsSpan().SequenceEqual(bytes.AsSpan(0, 32))
                ? bytes[32..]
                : null;
        }
        catch (IOException)
        {
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Keeps code; a cache that cannot be written costs the next start a second and nothing else.</summary>
    internal static void Write(string file, byte[] image)
    {
        try
        {
            PrivateFolder.Make(Path.GetDirectoryName(file)!);
            using var staged = StagedPath.Beside(file);
            staged.Write(stream =>
            {
                stream.Write(SHA256.HashData(image));
                stream.Write(image);
            });
            staged.MoveTo(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or UserFault) { }
    }

    private byte[] Compile(string name, string source, string[] options)
    {
        nint program;
        var texts = options.Select(option => (nint)Marshal.StringToCoTaskMemUTF8(option)).ToArray();
        try
        {
            fixed (
                byte* text = Encoding.UTF8.GetBytes(source + '\0'),
                    title = Encoding.UTF8.GetBytes(name + '\0')
            )
            {
                if (create(&program, text, title, 0, null, null) != 0)
                    throw new ExternalException($"{name}: the kernel compiler could not be started");
            }
            int result;
            fixed (nint* pointers = texts)
                result = compile(program, texts.Length, (byte**)pointers);
            if (result != 0)
            {
                nuint length;
                logSize(program, &length);
                var message = new byte[(int)length];
                fixed (byte* bytes = message)
                    log(program, bytes);
                throw new ExternalException(
                    $"{name} did not compile: {Encoding.UTF8.GetString(message).TrimEnd('\0', '\n')}"
                );
            }
            nuint size;
            codeSize(program, &size);
            var image = new byte[(int)size];
            fixed (byte* bytes = image)
                code(program, bytes);
            destroy(&program);
            return image;
        }
        finally
        {
            foreach (var text in texts)
                Marshal.FreeCoTaskMem(text);
        }
    }
}
