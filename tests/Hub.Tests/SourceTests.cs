using System.Text;
using Memopt.Core;

namespace Memopt.Hub.Tests;

/// <summary>Who is asked for what, with which token, and what is refused.</summary>
[Collection(Network.Name)]
public sealed class SourceTests
{
    [Theory]
    [InlineData("Qwen/Qwen2.5-0.5B", "HuggingFace", "Qwen/Qwen2.5-0.5B")]
    [InlineData("modelscope:Qwen/Qwen2.5-0.5B", "ModelScope", "Qwen/Qwen2.5-0.5B")]
    [InlineData("https://host/folder", "Web", "https://host/folder")]
    [InlineData("az://account/container/a/path", "Azure", "account/container/a/path")]
    [InlineData("embedded:nano", "Embedded", "embedded:nano")]
    public void Source_is_parsed(string text, string kind, string name)
    {
        var source = ModelSource.Parse(text, Path.GetTempPath());
        Assert.Equal((kind, name), (source.Kind.ToString(), source.Name));
        Assert.Equal(text, source.ToString());
    }

    [Theory]
    [InlineData("nowhere")]
    [InlineData("./org/name")]
    [InlineData("../name")]
    [InlineData("a/b/c")]
    [InlineData("embedded:other")]
    [InlineData("modelscope:org")]
    [InlineData("modelscope:../..")]
    [InlineData("az://account")]
    [InlineData("az://account/container/../other")]
    [InlineData("https://me:secret@host/folder")]
    public void Source_that_is_malformed_is_refused(string text) =>
        Assert.NotNull(Assert.Throws<UserFault>(() => ModelSource.Parse(text, Path.GetTempPath())).Next);

    [Fact]
    public void Source_that_is_an_existing_folder_wins_over_a_hub_name()
    {
        var root = Directory.CreateTempSubdirectory("memopt").FullName;
        Directory.CreateDirectory(Path.Combine(root, "org", "model"));
        Assert.Equal(SourceKind.Folder, ModelSource.Parse("org/model", root).Kind);
        Assert.Equal(SourceKind.HuggingFace, ModelSource.Parse("org/other", root).Kind);
    }

    [Fact]
    public async Task Token_is_sent_to_its_hub_and_to_no_other_host()
    {
        using var bench = new Workbench();
        bench.Server.Token = "hf_secret";
        var refused = await Assert.ThrowsAsync<UserFault>(() => bench.PullAsync());
        Assert.Contains("HF_TOKEN", refused.Next);
        bench.Settings = bench.Settings with { Token = "hf_secret" };
        bench.Same(await bench.PullAsync());
        Assert.NotEmpty(bench.Server.StorageRequests);
        Assert.All(
            bench.Server.StorageRequests,
            request => Assert.DoesNotContain("secret", string.Join('\n', request.Headers.Values) + request.Query)
        );
        Assert.Contains(bench.Server.HubRequests, request => request.Header("authorization") == "Bearer hf_secret");
        // Nor to an address that a user names, even when the hub's token is set.
        bench.Server.Token = null;
        bench.Server.HubRequests.Clear();
        bench.Settings = bench.Settings with { Endpoint = new("https://elsewhere.invalid/") };
        await bench.PullAsync($"{bench.Server.Url}files");
        Assert.All(bench.Server.HubRequests, request => Assert.Null(request.Header("authorization")));
    }

    [Fact]
    public async Task Pull_fetches_only_needed_files()
    {
        using var bench = new Workbench();
        bench.Same(await bench.PullAsync());
        Assert.DoesNotContain(
            bench.Server.HubRequests.Concat(bench.Server.StorageRequests),
            request =>
                request.Path.EndsWith(".bin", StringComparison.Ordinal)
                || request.Path.EndsWith(".py", StringComparison.Ordinal)
                || request.Path.EndsWith(".onnx", StringComparison.Ordinal)
                || request.Path.EndsWith(".md", StringComparison.Ordinal)
                || request.Path.EndsWith(bench.Server.Files["pytorch_model.bin"].Sha256, StringComparison.Ordinal)
        );
    }

    /// <summary>Whatever a reader opens comes from each kind of source as it lies in a folder.</summary>
    [Fact]
    public async Task Files_that_readers_open_come_from_every_kind_of_source()
    {
        using var bench = new Workbench(shards: 1);
        var folder = Directory.CreateDirectory(Path.Combine(bench.Root, "folder")).FullName;
        foreach (var name in ModelLayout.Small)
            bench.Server.Files[name] = new(Encoding.UTF8.GetBytes($"{{ \"{name}\": 1 }}"), Large: false);
        // A shard and an index that are left over beside the whole file are not read, and so do not come.
        bench.Server.Files[ModelLayout.Index] = new(
            "{ \"weight_map\": { \"w\": \"model-00001-of-00001.safetensors\" } }"u8.ToArray(),
            Large: false
        );
        bench.Server.Files["model-00001-of-00001.safetensors"] = new([1, 2, 3], Large: true);
        foreach (var name in ModelLayout.Small)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(folder, name))!);
            File.WriteAllBytes(Path.Combine(folder, name), bench.Server.Files[name].Bytes);
        }
        foreach (var (name, file) in bench.Server.Files.ToList())
            bench.Server.Files[$"container/model/{name}"] = file;
        bench.Settings = bench.Settings with { Azure = $"{bench.Server.Url}files", AzureSas = "?sig=abc" };
        foreach (
            var source in new[]
            {
                "org/model",
                "modelscope:org/model",
                $"{bench.Server.Url}files",
                "az://account/container/model",
            }
        )
        {
            var model = await bench.PullAsync(source);
            Assert.Equal(
                ModelLayout.Small.Append("model.safetensors").Order(StringComparer.Ordinal),
                model.Files.Select(file => file.Path)
            );
            Assert.All(
                ModelLayout.Small,
                name =>
                    Assert.Equal(
                        File.ReadAllBytes(Path.Combine(folder, name)),
                        File.ReadAllBytes(Path.Combine(model.Folder, name))
                    )
            );
        }
    }

    [Fact]
    public async Task Snapshot_made_by_another_version_is_completed()
    {
        using var bench = new Workbench(shards: 1);
        bench.Server.Files[ModelLayout.ToolTemplate] = new("tools"u8.ToArray(), Large: false);
        bench.Server.Files["additional_chat_templates/rag.jinja"] = new("rag"u8.ToArray(), Large: false);
        var model = await bench.PullAsync();
        // As one that knew of no named templates left it: the commit, without the mark that a pull of this version has
        // brought all of it.
        Directory.Delete(Path.Combine(model.Folder, "additional_chat_templates"), recursive: true);
        Directory.Delete(Path.Combine(bench.Root, "hub", "models--org--model", ".memopt"), recursive: true);
        var again = await bench.PullAsync(revision: HubServer.Commit);
        Assert.Equal(
            ("tools", "rag"),
            (
                File.ReadAllText(Path.Combine(again.Folder, ModelLayout.ToolTemplate)),
                File.ReadAllText(Path.Combine(again.Folder, "additional_chat_templates/rag.jinja"))
            )
        );
        bench.Server.HubRequests.Clear();
        await bench.PullAsync(revision: HubServer.Commit);
        Assert.Empty(bench.Server.HubRequests);
    }

    [Fact]
    public async Task Config_pull_fetches_the_config_files_alone()
    {
        using var bench = new Workbench();
        using var hub = new ModelHub(bench.Settings) { FreeBytes = _ => long.MaxValue };
        var model = await hub.ConfigAsync(ModelSource.Parse("org/model", bench.Root), null, bench, default);
        Assert.Equal(["config.json", "generation_config.json"], model.Files.Select(file => file.Path));
        Assert.Empty(bench.Server.StorageRequests);
        Assert.Equal(HubServer.Commit, model.Commit);
    }

    [Fact]
    public async Task Model_of_pickles_is_refused()
    {
        using var bench = new Workbench(shards: 1);
        bench.Server.Files.TryRemove("model.safetensors", out _);
        var fault = await Assert.ThrowsAsync<UserFault>(() => bench.PullAsync());
        Assert.Contains("pickle", fault.Found);
    }

    [Theory]
    [InlineData("../../outside.safetensors")]
    [InlineData("/etc/outside.safetensors")]
    [InlineData("a/../../outside.safetensors")]
    [InlineData("a\\..\\outside.safetensors")]
    public async Task File_name_that_leads_outside_is_refused(string name)
    {
        using var bench = new Workbench();
        bench.Server.Files["model.safetensors.index.json"] = new(
            Encoding.UTF8.GetBytes(
                $$"""{ "weight_map": { "w": {{System.Text.Json.JsonSerializer.Serialize(name)}} } }"""
            ),
            Large: false
        );
        bench.Server.Files[name] = new([1, 2, 3], Large: true);
        var fault = await Assert.ThrowsAsync<UserFault>(() => bench.PullAsync());
        Assert.Contains("must not be written", fault.Message);
        Assert.Empty(Directory.EnumerateFiles(Path.GetDirectoryName(bench.Root)!, "outside*"));
    }

    [Fact]
    public async Task File_names_may_have_spaces_and_letters_of_any_script()
    {
        const string name = "über alles/model 1+2 #%41?.safetensors";
        using var bench = new Workbench(shards: 1);
        bench.Server.Files.TryRemove("model.safetensors", out var weights);
        bench.Server.Files[name] = weights!;
        bench.Server.Files["model.safetensors.index.json"] = new(
            Encoding.UTF8.GetBytes($$"""{ "weight_map": { "w": "{{name}}" } }"""),
            Large: false
        );
        foreach (var source in (string[])["org/model", $"{bench.Server.Url}files"])
            Assert.Equal(weights!.Bytes, File.ReadAllBytes(Path.Combine((await bench.PullAsync(source)).Folder, name)));
    }

    [Theory]
    [InlineData("revision", "{}")]
    [InlineData("revision", "[]")]
    [InlineData("revision", "{ \"sha\": null }")]
    [InlineData("revision", "<html>")]
    [InlineData("revision", "")]
    [InlineData("tree", "{ \"error\": \"x\" }")]
    [InlineData("tree", "[{ \"type\": \"file\", \"path\": \"config.json\", \"oid\": \"ab\", \"size\": \"5\" }]")]
    [InlineData("tree", "[{ \"type\": \"file\", \"path\": null, \"oid\": \"ab\", \"size\": 5 }]")]
    public async Task Answer_that_is_not_a_hubs_is_refused(string asked, string answer)
    {
        using var bench = new Workbench();
        bench.Server.Instead = request =>
            request.Path.Contains($"/{asked}/", StringComparison.Ordinal)
                ? (Encoding.UTF8.GetBytes(answer), null)
                : null;
        var fault = await Assert.ThrowsAsync<UserFault>(() => bench.PullAsync());
        Assert.Contains("does not answer as a model hub", fault.Message);
        Assert.Contains("HF_ENDPOINT", fault.Next);
    }

    /// <summary>Some proxies compress whatever is asked for.</summary>
    [Theory, InlineData("org/model"), InlineData("files")]
    public async Task Answers_compressed_unasked_are_read(string source)
    {
        using var bench = new Workbench(shards: 1);
        bench.Server.Instead = request =>
            request.Path.Contains("/tree/", StringComparison.Ordinal)
            || request.Path.EndsWith("/config.json", StringComparison.Ordinal) && request.Header("range") is null
                ? (Packed(request), "Content-Encoding: gzip\r\n")
                : null;
        bench.Same(await bench.PullAsync(source == "files" ? $"{bench.Server.Url}files" : source));

        byte[] Packed(HubRequest request)
        {
            using var packed = new MemoryStream();
            using (
                var gzip = new System.IO.Compression.GZipStream(packed, System.IO.Compression.CompressionLevel.Fastest)
            )
                gzip.Write(
                    request.Path.Contains("/tree/", StringComparison.Ordinal)
                        ? bench.Server.Listing()
                        : bench.Server.Files["config.json"].Bytes
                );
            return packed.ToArray();
        }
    }

    [Theory]
    [InlineData("../../../outside")]
    [InlineData("/outside")]
    [InlineData("a/../../..")]
    public async Task Commit_that_leads_outside_is_refused(string commit)
    {
        using var bench = new Workbench();
        bench.Server.Head = commit;
        Assert.Contains("must not be written", (await Assert.ThrowsAsync<UserFault>(() => bench.PullAsync())).Message);
    }

    [Fact]
    public async Task ModelScope_model_is_pulled_pinned_and_cached()
    {
        using var bench = new Workbench();
        bench.Server.Token = "ms-secret";
        bench.Settings = bench.Settings with { ModelScopeToken = "ms-secret", Token = "hf_other" };
        var left = 8;
        bench.Server.Spoil = request =>
            request.Query.Contains(".safetensors") && Interlocked.Decrement(ref left) is >= 0 and < 6 and var n
                ? new(FaultKind.Reset, Cut: 1000 * n)
                : null;
        var model = await bench.PullAsync("modelscope:org/model");
        bench.Same(model);
        Assert.Equal(6, bench.Server.Faults);
        Assert.Equal("modelscope:org/model", model.Source);
        Assert.All(bench.Server.HubRequests, request => Assert.Null(request.Header("authorization")));
        // Pinned: the name of the content is the commit, and the cache has it without asking.
        bench.Server.HubRequests.Clear();
        Assert.Equal(model.Folder, (await bench.PullAsync("modelscope:org/model", model.Commit)).Folder);
        Assert.Empty(bench.Server.HubRequests);
    }

    [Fact]
    public async Task Web_folder_is_read_by_file_name_and_pinned_by_content()
    {
        using var bench = new Workbench();
        var source = $"{bench.Server.Url}files?signature=secret";
        var model = await bench.PullAsync(source);
        bench.Same(model);
        Assert.DoesNotContain("secret", model.Source);
        Assert.All(bench.Server.HubRequests, request => Assert.Equal("?signature=secret", request.Query));
        Assert.All(model.Files, file => Assert.Equal("sha256:" + bench.Server.Files[file.Path].Sha256, file.Hash));
        var sent = bench.Server.Sent;
        Assert.Equal(0, (await bench.PullAsync(source)).FetchedBytes);
        Assert.InRange(bench.Server.Sent, sent, sent + 2000); // the first bytes and the index
        bench.Server.WithModel(2, 300_000, seed: 9);
        var fault = await Assert.ThrowsAsync<UserFault>(() =>
            bench.PullAsync(source, "0123456789012345678901234567890123456789")
        );
        Assert.Contains("no longer at revision", fault.Message);
        Assert.NotEqual(model.Commit, (await bench.PullAsync(source)).Commit);
    }

    [Fact]
    public async Task Azure_container_is_read_with_a_signature_or_a_token()
    {
        using var bench = new Workbench();
        bench.Server.Token = "azure-secret";
        bench.Settings = bench.Settings with { AzureToken = _ => new("azure-secret") };
        foreach (var (name, file) in bench.Server.Files.ToList())
            bench.Server.Files[$"container/my llm/{name}"] = file;
        bench.Settings = bench.Settings with { Azure = $"{bench.Server.Url}files" };
        var model = await bench.PullAsync("az://account/container/my llm");
        Assert.Equal(
            bench.Server.Files["model-00001-of-00002.safetensors"].Bytes,
            File.ReadAllBytes(Path.Combine(model.Folder, "model-00001-of-00002.safetensors"))
        );
        bench.Server.Token = null;
        bench.Server.HubRequests.Clear();
        bench.Settings = bench.Settings with { AzureSas = "?sv=1&sig=abc%2F", OwnCache = bench.Root + "/second" };
        await bench.PullAsync("az://account/container/my llm");
        Assert.All(
            bench.Server.HubRequests,
            request => Assert.Equal(("?sv=1&sig=abc%2F", null), (request.Query, request.Header("authorization")))
        );
    }
}
