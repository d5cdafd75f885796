using System.Text;
using Memopt.Core;

namespace Memopt.Hub.Tests;

/// <summary>Who is asked for what, with which token, and what is refused.</summary>
[Collection(ExclusiveCollection.Name)]
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
        using var fixture = new PullFixture();
        fixture.Server.Token = "hf_secret";
        var refused = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
        Assert.Contains("HF_TOKEN", refused.Next);
        fixture.Settings = fixture.Settings with { Token = "hf_secret" };
        fixture.Same(await fixture.PullAsync());
        Assert.NotEmpty(fixture.Server.StorageRequests);
        Assert.All(
            fixture.Server.StorageRequests,
            request => Assert.DoesNotContain("secret", string.Join('\n', request.Headers.Values) + request.Query)
        );
        Assert.Contains(fixture.Server.HubRequests, request => request.Header("authorization") == "Bearer hf_secret");
        // Nor to an address that a user names, even when the hub's token is set.
        fixture.Server.Token = null;
        fixture.Server.HubRequests.Clear();
        fixture.Settings = fixture.Settings with { Endpoint = new("https://elsewhere.invalid/") };
        await fixture.PullAsync($"{fixture.Server.Url}files");
        Assert.All(fixture.Server.HubRequests, request => Assert.Null(request.Header("authorization")));
    }

    [Fact]
    public async Task Pull_fetches_only_needed_files()
    {
        using var fixture = new PullFixture();
        fixture.Same(await fixture.PullAsync());
        Assert.DoesNotContain(
            fixture.Server.HubRequests.Concat(fixture.Server.StorageRequests),
            request =>
                request.Path.EndsWith(".bin", StringComparison.Ordinal)
                || request.Path.EndsWith(".py", StringComparison.Ordinal)
                || request.Path.EndsWith(".onnx", StringComparison.Ordinal)
                || request.Path.EndsWith(".md", StringComparison.Ordinal)
                || request.Path.EndsWith(fixture.Server.Files["pytorch_model.bin"].Sha256, StringComparison.Ordinal)
        );
    }

    /// <summary>Whatever a reader opens comes from each kind of source as it lies in a folder.</summary>
    [Fact]
    public async Task Files_that_readers_open_come_from_every_kind_of_source()
    {
        using var fixture = new PullFixture(shards: 1);
        var folder = Directory.CreateDirectory(Path.Combine(fixture.Root, "folder")).FullName;
        foreach (var name in ModelLayout.Small)
            fixture.Server.Files[name] = new(Encoding.UTF8.GetBytes($"{{ \"{name}\": 1 }}"), Large: false);
        // A shard and an index that are left over beside the whole file are not read, and so do not come.
        fixture.Server.Files[ModelLayout.Index] = new(
            "{ \"weight_map\": { \"w\": \"model-00001-of-00001.safetensors\" } }"u8.ToArray(),
            Large: false
        );
        fixture.Server.Files["model-00001-of-00001.safetensors"] = new([1, 2, 3], Large: true);
        foreach (var name in ModelLayout.Small)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(folder, name))!);
            File.WriteAllBytes(Path.Combine(folder, name), fixture.Server.Files[name].Bytes);
        }
        foreach (var (name, file) in fixture.Server.Files.ToList())
            fixture.Server.Files[$"container/model/{name}"] = file;
        fixture.Settings = fixture.Settings with { Azure = $"{fixture.Server.Url}files", AzureSas = "?sig=abc" };
        foreach (
            var source in new[]
            {
                "org/model",
                "modelscope:org/model",
                $"{fixture.Server.Url}files",
                "az://account/container/model",
            }
        )
        {
            var model = await fixture.PullAsync(source);
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
        using var fixture = new PullFixture(shards: 1);
        fixture.Server.Files[ModelLayout.ToolTemplate] = new("tools"u8.ToArray(), Large: false);
        fixture.Server.Files["additional_chat_templates/rag.jinja"] = new("rag"u8.ToArray(), Large: false);
        var model = await fixture.PullAsync();
        // As one that knew of no named templates left it: the commit, without the mark that a pull of this version has
        // brought all of it.
        Directory.Delete(Path.Combine(model.Folder, "additional_chat_templates"), recursive: true);
        Directory.Delete(Path.Combine(fixture.Root, "hub", "models--org--model", ".memopt"), recursive: true);
        var again = await fixture.PullAsync(revision: HubServer.Commit);
        Assert.Equal(
            ("tools", "rag"),
            (
                File.ReadAllText(Path.Combine(again.Folder, ModelLayout.ToolTemplate)),
                File.ReadAllText(Path.Combine(again.Folder, "additional_chat_templates/rag.jinja"))
            )
        );
        fixture.Server.HubRequests.Clear();
        await fixture.PullAsync(revision: HubServer.Commit);
        Assert.Empty(fixture.Server.HubRequests);
    }

    [Fact]
    public async Task Config_pull_fetches_the_config_files_alone()
    {
        using var fixture = new PullFixture();
        using var hub = new ModelHub(fixture.Settings) { FreeBytes = _ => long.MaxValue };
        var model = await hub.ConfigAsync(ModelSource.Parse("org/model", fixture.Root), null, fixture, default);
        Assert.Equal(["config.json", "generation_config.json"], model.Files.Select(file => file.Path));
        Assert.Empty(fixture.Server.StorageRequests);
        Assert.Equal(HubServer.Commit, model.Commit);
    }

    [Fact]
    public async Task Model_of_pickles_is_refused()
    {
        using var fixture = new PullFixture(shards: 1);
        fixture.Server.Files.TryRemove("model.safetensors", out _);
        var fault = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
        Assert.Contains("pickle", fault.Found);
    }

    [Theory]
    [InlineData("../../outside.safetensors")]
    [InlineData("/etc/outside.safetensors")]
    [InlineData("a/../../outside.safetensors")]
    [InlineData("a\\..\\outside.safetensors")]
    public async Task File_name_that_leads_outside_is_refused(string name)
    {
        using var fixture = new PullFixture();
        fixture.Server.Files["model.safetensors.index.json"] = new(
            Encoding.UTF8.GetBytes(
                $$"""{ "weight_map": { "w": {{System.Text.Json.JsonSerializer.Serialize(name)}} } }"""
            ),
            Large: false
        );
        fixture.Server.Files[name] = new([1, 2, 3], Large: true);
        var fault = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
        Assert.Contains("must not be written", fault.Message);
        Assert.Empty(Directory.EnumerateFiles(Path.GetDirectoryName(fixture.Root)!, "outside*"));
    }

    [Fact]
    public async Task File_names_may_have_spaces_and_letters_of_any_script()
    {
        const string name = "über alles/model 1+2 #%41?.safetensors";
        using var fixture = new PullFixture(shards: 1);
        fixture.Server.Files.TryRemove("model.safetensors", out var weights);
        fixture.Server.Files[name] = weights!;
        fixture.Server.Files["model.safetensors.index.json"] = new(
            Encoding.UTF8.GetBytes($$"""{ "weight_map": { "w": "{{name}}" } }"""),
            Large: false
        );
        foreach (var source in (string[])["org/model", $"{fixture.Server.Url}files"])
            Assert.Equal(
                weights!.Bytes,
                File.ReadAllBytes(Path.Combine((await fixture.PullAsync(source)).Folder, name))
            );
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
        using var fixture = new PullFixture();
        fixture.Server.Instead = request =>
            request.Path.Contains($"/{asked}/", StringComparison.Ordinal)
                ? (Encoding.UTF8.GetBytes(answer), null)
                : null;
        var fault = await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync());
        Assert.Contains("does not answer as a model hub", fault.Message);
        Assert.Contains("HF_ENDPOINT", fault.Next);
    }

    /// <summary>Some proxies compress whatever is asked for.</summary>
    [Theory, InlineData("org/model"), InlineData("files")]
    public async Task Answers_compressed_unasked_are_read(string source)
    {
        using var fixture = new PullFixture(shards: 1);
        fixture.Server.Instead = request =>
            request.Path.Contains("/tree/", StringComparison.Ordinal)
            || request.Path.EndsWith("/config.json", StringComparison.Ordinal) && request.Header("range") is null
                ? (Packed(request), "Content-Encoding: gzip\r\n")
                : null;
        fixture.Same(await fixture.PullAsync(source == "files" ? $"{fixture.Server.Url}files" : source));

        byte[] Packed(HubRequest request)
        {
            using var packed = new MemoryStream();
            using (
                var gzip = new System.IO.Compression.GZipStream(packed, System.IO.Compression.CompressionLevel.Fastest)
            )
                gzip.Write(
                    request.Path.Contains("/tree/", StringComparison.Ordinal)
                        ? fixture.Server.Listing()
                        : fixture.Server.Files["config.json"].Bytes
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
        using var fixture = new PullFixture();
        fixture.Server.Head = commit;
        Assert.Contains(
            "must not be written",
            (await Assert.ThrowsAsync<UserFault>(() => fixture.PullAsync())).Message
        );
    }

    [Fact]
    public async Task ModelScope_model_is_pulled_pinned_and_cached()
    {
        using var fixture = new PullFixture();
        fixture.Server.Token = "ms-secret";
        fixture.Settings = fixture.Settings with { ModelScopeToken = "ms-secret", Token = "hf_other" };
        var left = 8;
        fixture.Server.Spoil = request =>
            request.Query.Contains(".safetensors") && Interlocked.Decrement(ref left) is >= 0 and < 6 and var n
                ? new(FaultKind.Reset, Cut: 1000 * n)
                : null;
        var model = await fixture.PullAsync("modelscope:org/model");
        fixture.Same(model);
        Assert.Equal(6, fixture.Server.Faults);
        Assert.Equal("modelscope:org/model", model.Source);
        Assert.All(fixture.Server.HubRequests, request => Assert.Null(request.Header("authorization")));
        // Pinned: the name of the content is the commit, and the cache has it without asking.
        fixture.Server.HubRequests.Clear();
        Assert.Equal(model.Folder, (await fixture.PullAsync("modelscope:org/model", model.Commit)).Folder);
        Assert.Empty(fixture.Server.HubRequests);
    }

    [Fact]
    public async Task Web_folder_is_read_by_file_name_and_pinned_by_content()
    {
        using var fixture = new PullFixture();
        var source = $"{fixture.Server.Url}files?signature=secret";
        var model = await fixture.PullAsync(source);
        fixture.Same(model);
        Assert.DoesNotContain("secret", model.Source);
        Assert.All(fixture.Server.HubRequests, request => Assert.Equal("?signature=secret", request.Query));
        Assert.All(model.Files, file => Assert.Equal("sha256:" + fixture.Server.Files[file.Path].Sha256, file.Hash));
        var sent = fixture.Server.Sent;
        Assert.Equal(0, (await fixture.PullAsync(source)).FetchedBytes);
        Assert.InRange(fixture.Server.Sent, sent, sent + 2000); // the first bytes and the index
        fixture.Server.WithModel(2, 300_000, seed: 9);
        var fault = await Assert.ThrowsAsync<UserFault>(() =>
            fixture.PullAsync(source, "0123456789012345678901234567890123456789")
        );
        Assert.Contains("no longer at revision", fault.Message);
        Assert.NotEqual(model.Commit, (await fixture.PullAsync(source)).Commit);
    }

    [Fact]
    public async Task Azure_container_is_read_with_a_signature_or_a_token()
    {
        using var fixture = new PullFixture();
        fixture.Server.Token = "azure-secret";
        fixture.Settings = fixture.Settings with { AzureToken = _ => new("azure-secret") };
        foreach (var (name, file) in fixture.Server.Files.ToList())
            fixture.Server.Files[$"container/my llm/{name}"] = file;
        fixture.Settings = fixture.Settings with { Azure = $"{fixture.Server.Url}files" };
        var model = await fixture.PullAsync("az://account/container/my llm");
        Assert.Equal(
            fixture.Server.Files["model-00001-of-00002.safetensors"].Bytes,
            File.ReadAllBytes(Path.Combine(model.Folder, "model-00001-of-00002.safetensors"))
        );
        fixture.Server.Token = null;
        fixture.Server.HubRequests.Clear();
        fixture.Settings = fixture.Settings with { AzureSas = "?sv=1&sig=abc%2F", OwnCache = fixture.Root + "/second" };
        await fixture.PullAsync("az://account/container/my llm");
        Assert.All(
            fixture.Server.HubRequests,
            request => Assert.Equal(("?sv=1&sig=abc%2F", null), (request.Query, request.Header("authorization")))
        );
    }
}
