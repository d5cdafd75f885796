using System.Runtime.InteropServices;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data.Formats;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Weights;

namespace Memopt.Trainer.Tests;

/// <summary>A file of a model may be a pipe, which never answers, or a link to a device, which never ends.</summary>
public sealed partial class FileReadersTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    public static TheoryData<string, string> Readers()
    {
        var data = new TheoryData<string, string>();
        foreach (
            var name in (string[])
                [
                    "config.json",
                    "generation_config.json",
                    "tokenizer.json",
                    "tokenizer_config.json",
                    "special_tokens_map.json",
                    "chat_template.jinja",
                    "model.safetensors",
                    "model.safetensors.index.json",
                    "adapter_config.json",
                    "memopt.json",
                    "rows.jsonl",
                    "rows.parquet",
                ]
        )
        {
            foreach (var kind in (string[])["a pipe", "a device"])
                data.Add(name, kind);
        }
        return data;
    }

    [Theory, MemberData(nameof(Readers))]
    public void File_that_is_a_pipe_or_a_link_to_a_device_is_refused_by_name(string name, string kind)
    {
        if (!OperatingSystem.IsLinux())
            return;
        foreach (var file in (string[])["config.json", "tokenizer.json"])
            File.Copy(Path.Combine(TestBackend.Nano, file), Path.Combine(folder, file));
        File.WriteAllText(Path.Combine(folder, "adapter_model.safetensors"), "");
        var path = Path.Combine(folder, name);
        File.Delete(path);
        if (kind == "a device")
            File.CreateSymbolicLink(path, "/dev/zero");
        else
            Assert.Equal(0, mkfifo(path, 0x180));
        var fault = Assert.Throws<UserFault>(() => Read(path));
        Assert.Contains(name, fault.Message);
        Assert.Contains("not a regular file", fault.Message);
        Assert.Contains(kind, fault.Found);
    }

    private void Read(string path)
    {
        switch (Path.GetFileName(path))
        {
            case "config.json" or "generation_config.json":
                ModelSpec.Read(folder);
                break;
            case "tokenizer.json" or "tokenizer_config.json" or "special_tokens_map.json":
                Tokenizer.Load(folder);
                break;
            case "chat_template.jinja":
                ChatTemplate.Load(folder);
                break;
            case "model.safetensors":
                SafeTensors.Open(path).Dispose();
                break;
            case "model.safetensors.index.json":
                WeightStream.Files(folder);
                break;
            case "adapter_config.json":
                global::Memopt.Adapters.Load(folder);
                break;
            case "memopt.json":
                RunConfigFile.Read(path, []);
                break;
            case "rows.jsonl":
                Assert.Empty(RowFile.Read(new(path, DataFormat.Jsonl, null)));
                break;
            case "rows.parquet":
                Assert.Empty(RowFile.Read(new(path, DataFormat.Parquet, null)));
                break;
            default:
                Assert.Fail(path);
                break;
        }
    }

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int mkfifo(string path, uint mode);
}
