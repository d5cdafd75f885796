using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Tests;
using Memopt.Trainer.Weights;
using Microsoft.Extensions.AI;

namespace Memopt.Tests;

[Collection(ExclusiveCollection.Name)]
public sealed class TextGeneratorTests : IDisposable
{
    private const string Question = "What part of speech is \"chub\"?";

    private readonly TextGenerator generator = TextGenerator.Load(TestBackend.Nano);

    public void Dispose() => generator.Dispose();

    [Fact]
    public async Task Generator_streamed_or_whole_gives_the_text_of_the_recipe()
    {
        foreach (
            var (options, sampling) in new (ChatOptions, Sampling)[]
            {
                (new() { MaxOutputTokens = 24 }, new(24)),
                (
                    new()
                    {
                        MaxOutputTokens = 24,
                        Temperature = 1.5f,
                        TopP = 0.9f,
                        Seed = 7,
                    },
                    new(24, 1.5, 0.9f, 7)
                ),
                (
                    new()
                    {
                        MaxOutputTokens = 24,
                        Temperature = 1.5f,
                        Seed = 8,
                        Instructions = "Answer in one word.",
                    },
                    new(24, 1.5, 1, 8)
                ),
            }
        )
        {
            var (expected, prompt, tokens) = Reference(options.Instructions, sampling);
            var whole = await generator.GetResponseAsync(Question, options);
            Assert.Equal(expected, whole.Text);
            Assert.Equal(
                (prompt, tokens, prompt + tokens),
                (
                    (int)whole.Usage!.InputTokenCount!,
                    (int)whole.Usage.OutputTokenCount!,
                    (int)whole.Usage.TotalTokenCount!
                )
            );
            Assert.Equal(tokens == 24 ? ChatFinishReason.Length : ChatFinishReason.Stop, whole.FinishReason);
            var pieces = await generator.GetStreamingResponseAsync(Question, options).ToListAsync();
            Assert.Equal(expected, string.Concat(pieces.Select(piece => piece.Text)));
            Assert.True(pieces.Count(piece => piece.Text.Length > 0) > 3);
            Assert.Single(pieces.Select(piece => piece.ResponseId).Distinct());
        }
    }

    [Fact]
    public async Task Stop_sequence_ends_the_answer_before_it()
    {
        var text = (await generator.GetResponseAsync(Question, new() { MaxOutputTokens = 40 })).Text;
        Assert.True(text.Length > 20, text);
        foreach (var length in new[] { 1, 4, 9 })
        {
            var stop = text.Substring(text.Length / 2, length);
            var ended = await generator.GetResponseAsync(
                Question,
                new() { MaxOutputTokens = 40, StopSequences = ["never this", stop] }
            );
            Assert.Equal(
                (text[..text.IndexOf(stop, StringComparison.Ordinal)], ChatFinishReason.Stop),
                (ended.Text, ended.FinishReason!.Value)
            );
            // Only begun, it is no end.
            Assert.Equal(
                text,
                (
                    await generator.GetResponseAsync(
                        Question,
                        new() { MaxOutputTokens = 40, StopSequences = [text[^length..] + "\u0001"] }
                    )
                ).Text
            );
        }
    }

    [Fact]
    public async Task Options_that_mean_nothing_are_refused()
    {
        foreach (
            var options in new ChatOptions[]
            {
                new() { Temperature = -1 },
                new() { Temperature = float.NaN },
                new() { TopP = 1.5f },
                new() { TopP = float.NaN },
                new() { MaxOutputTokens = -1 },
            }
        )
            await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => generator.GetResponseAsync(Question, options));
        await Assert.ThrowsAsync<ArgumentException>(() => generator.GetResponseAsync([null!]));
        Assert.Throws<ArgumentNullException>(() => TextGenerator.Load((Adapter)null!));
        Assert.Throws<ArgumentNullException>(() => TextGenerator.Load((string)null!));
        Assert.ThrowsAny<OperationCanceledException>(() =>
            TextGenerator.Load(TestBackend.Nano, cancellation: new(canceled: true))
        );

        // As small as a temperature can be it is greedy, and a stop that is nothing stops nothing.
        var greedy = await generator.GetResponseAsync(Question, new() { MaxOutputTokens = 8 });
        Assert.Equal(
            greedy.Text,
            (
                await generator.GetResponseAsync(
                    Question,
                    new()
                    {
                        MaxOutputTokens = 8,
                        Temperature = float.Epsilon,
                        StopSequences = [null!, ""],
                    }
                )
            ).Text
        );
    }

    [Fact]
    public async Task Generator_after_a_cancelled_or_abandoned_answer_is_usable()
    {
        var long_ = new ChatOptions
        {
            MaxOutputTokens = 900,
            Temperature = 2,
            Seed = 3,
        };
        var expected = (await generator.GetResponseAsync(Question, new() { MaxOutputTokens = 12 })).Text;
        using var stop = new CancellationTokenSource();
        var pieces = 0;
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (var _ in generator.GetStreamingResponseAsync(Question, long_, stop.Token))
            {
                if (++pieces == 2)
                    stop.Cancel();
            }
        });
        Assert.Equal(expected, (await generator.GetResponseAsync(Question, new() { MaxOutputTokens = 12 })).Text);
        // One that is left and made to its end takes longer than the whole one does below, every time; what the machine
        // does beside it delays not every time.
        var quick = TimeSpan.MaxValue;
        var watch = new System.Diagnostics.Stopwatch();
        for (var round = 0; round < 5; round++)
        {
            await foreach (var _ in generator.GetStreamingResponseAsync(Question, long_))
                break;
            watch.Restart();
            Assert.Equal(expected, (await generator.GetResponseAsync(Question, new() { MaxOutputTokens = 12 })).Text);
            quick = watch.Elapsed < quick ? watch.Elapsed : quick;
        }
        watch.Restart();
        var whole = await generator.GetResponseAsync(Question, long_);
        Assert.True(quick < watch.Elapsed, "the answer that nobody waits for was made to its end");
        Assert.True(whole.Usage!.OutputTokenCount > 3 * 12, $"{whole.Usage.OutputTokenCount} tokens");
    }

    [Fact]
    public async Task Generators_on_several_threads_give_their_own_answers()
    {
        using var other = TextGenerator.Load(TestBackend.Nano);
        string[] words = ["chub", "airt", "nephritic", "run"];
        Task<ChatResponse> Ask(IChatClient client, string word) =>
            client.GetResponseAsync($"What part of speech is \"{word}\"?", new() { MaxOutputTokens = 16 });
        var alone = new List<string>();
        foreach (var word in words)
            alone.Add((await Ask(generator, word)).Text);
        Assert.True(alone.Distinct().Count() > 1);
        var together = await Task.WhenAll(words.SelectMany(word => new[] { Ask(generator, word), Ask(other, word) }));
        Assert.Equal(alone.SelectMany(text => new[] { text, text }), together.Select(answer => answer.Text));
    }

    [Fact]
    public async Task Generator_that_is_disposed_throws_and_unusable_prompts_are_refused()
    {
        Assert.Equal(
            ("memopt", TestBackend.Nano),
            (
                ((ChatClientMetadata)generator.GetService(typeof(ChatClientMetadata))!).ProviderName,
                ((ChatClientMetadata)generator.GetService(typeof(ChatClientMetadata))!).DefaultModelId
            )
        );
        Assert.Same(generator, generator.GetService(typeof(IChatClient)));
        Assert.Null(generator.GetService(typeof(IChatClient), "key"));
        await Assert.ThrowsAsync<UserFault>(() => generator.GetResponseAsync([]));
        await Assert.ThrowsAsync<UserFault>(() =>
            generator.GetResponseAsync([new(ChatRole.User, [new UriContent("https://host/a.png", "image/png")])])
        );
        Assert.Contains(
            "tokens",
            (
                await Assert.ThrowsAsync<UserFault>(() =>
                    generator.GetResponseAsync(string.Concat(Enumerable.Repeat("word ", 2000)))
                )
            ).Found
        );

        // More answers than are made before it is closed.
        var asked = Enumerable
            .Range(0, 200)
            .Select(_ =>
                generator.GetResponseAsync(
                    Question,
                    new()
                    {
                        MaxOutputTokens = 900,
                        Temperature = 2,
                        Seed = 3,
                    }
                )
            )
            .ToList();
        generator.Dispose();
        foreach (var answer in asked)
            Assert.True(
                await Task.WhenAny(answer)
                    is { IsCompletedSuccessfully: true }
                        or { Exception.InnerException: ObjectDisposedException },
                $"{answer.Exception}"
            );
        Assert.Contains(asked, answer => answer.IsFaulted);
        await Assert.ThrowsAsync<ObjectDisposedException>(() => generator.GetResponseAsync(Question));
        Assert.Contains("nowhere", Assert.Throws<UserFault>(() => TextGenerator.Load("./nowhere")).Message);
    }

    [Fact]
    public async Task Adapter_beside_the_program_is_found_by_its_name()
    {
        using var project = new NanoProject();
        var result = await project.FineTune.With("train.steps", 30).RunAsync();
        var beside = Path.Combine(AppContext.BaseDirectory, Adapters.BesideProgram, "word class");
        Directory.CreateDirectory(beside);
        foreach (var file in Directory.EnumerateFiles(result.AdapterFolder!))
            File.Copy(file, Path.Combine(beside, Path.GetFileName(file)), overwrite: true);
        var adapter = Adapters.Load("word class");
        Assert.Equal((beside, TestBackend.Nano, 4, 8), (adapter.Folder, adapter.Model, adapter.Rank, adapter.Alpha));
        using var client = TextGenerator.Load(adapter);
        Assert.Contains(
            (await client.GetResponseAsync(Question)).Text,
            new[] { "noun", "verb", "adjective", "adverb" }
        );
        Directory.Delete(beside, recursive: true);
    }

    private static (string Text, int Prompt, int Tokens) Reference(string? system, Sampling sampling)
    {
        var spec = ModelSpec.Read(TestBackend.Nano);
        var backend = Backend.Load("cpu", TestBackend.Environment);
        using var model = ModelLoader.Load(
            TestBackend.Nano,
            spec,
            new RunConfig(),
            ModelLoader.ComputeType(DType.Auto, backend),
            backend.Device
        );
        var tokenizer = Tokenizer.Load(TestBackend.Nano);
        List<JsonObject> chat = [new() { ["role"] = "user", ["content"] = Question }];
        if (system is not null)
            chat.Insert(0, new() { ["role"] = "system", ["content"] = system });
        var prompt = tokenizer.Encode(ChatTemplate.Load(TestBackend.Nano)!.Render(chat, addGenerationPrompt: true));
        var ids = Generation.Run(model, prompt, spec.EndOfTurn, sampling).ToList();
        return (tokenizer.Decode(ids), prompt.Length, ids.Count);
    }
}
