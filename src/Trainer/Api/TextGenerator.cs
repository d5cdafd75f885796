using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using System.Threading.Channels;
using Memopt.Core;
using Memopt.Hub;
using Memopt.Text;
using Memopt.Trainer.Models;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;
using Memopt.Trainer.Runs;
using Memopt.Trainer.Weights;
using Microsoft.Extensions.AI;

namespace Memopt;

/// <summary>Answers chats with a model, and the adapter laid over it if there is one. Safe for several threads:
/// answers are made one after another, on a thread of its own.
/// </summary>
/// <remarks>Of <see cref="ChatOptions"/> it heeds Instructions, Temperature (0, the default, is greedy), TopP, Seed,
/// MaxOutputTokens (256 by default) and StopSequences. Others ask for what a plain language model does not do (tools,
/// formats) and are passed over. Messages are read as text.
/// </remarks>
/// <example><code>
/// using IChatClient client = TextGenerator.Load(Adapters.Load("adapter"));
/// await foreach (var update in client.GetStreamingResponseAsync("What part of speech is \"serendipity\"?"))
///     Console.Write(update);
/// </code></example>
public sealed class TextGenerator : IChatClient
{
    private readonly BlockingCollection<Question> questions = [];
    private readonly CancellationTokenSource closing = new();
    private readonly ChatClientMetadata metadata;
    private readonly Thread thread;
    private ModelSpec spec = null!;
    private ChatEncoder text = null!;
    private bool closed;

    private TextGenerator(
        string model,
        string? revision,
        string? adapter,
        TextGeneratorOptions options,
        CancellationToken stop
    )
    {
        metadata = new("memopt", defaultModelId: model);
        var ready = new TaskCompletionSource();
        // TorchSharp's dispose scopes belong to a thread, so all of it is one.
        thread = new(() =>
        {
            Decoder loaded;
            try
            {
                loaded = Load(model, revision, adapter, options, stop);
            }
            catch (Exception e)
            {
                ready.SetException(e);
                return;
            }
            ready.SetResult();
            using (loaded)
            {
                foreach (var question in questions.GetConsumingEnumerable())
                    Answer(loaded, question);
            }
        })
        {
            Name = "memopt answers",
            IsBackground = true,
        };
        thread.Start();
        ready.Task.GetAwaiter().GetResult();
    }

    /// <summary>Loads an adapter over its base model, which is downloaded first where it is not here. Returns when it
    /// can answer.</summary>
    /// <param name="adapter">As <see cref="Adapters.Load"/> found it.</param>
    /// <param name="options">How; null takes the defaults.</param>
    /// <param name="cancellation">Gives up a download.</param>
    /// <exception cref="UserFault">The model, the adapter or libtorch cannot be loaded.</exception>
    public static TextGenerator Load(
        Adapter adapter,
        TextGeneratorOptions? options = null,
        CancellationToken cancellation = default
    ) =>
        adapter is null
            ? throw new ArgumentNullException(nameof(adapter))
            : new(adapter.Model, adapter.Revision, adapter.Folder, options ?? new(), cancellation);

    /// <summary>Loads a model without an adapter: a base model, or one that was fine-tuned whole.</summary>
    /// <param name="model">As in <c>model.source</c>; a folder is relative to the current directory.</param>
    /// <param name="options">How; null takes the defaults.</param>
    /// <param name="cancellation">Gives up a download.</param>
    /// <exception cref="UserFault">The model or libtorch cannot be loaded.</exception>
    public static TextGenerator Load(
        string model,
        TextGeneratorOptions? options = null,
        CancellationToken cancellation = default
    )
    {
        ArgumentException.ThrowIfNullOrEmpty(model);
        return new(model, null, null, options ?? new(), cancellation);
    }

    /// <inheritdoc />
    /// <exception cref="UserFault">The model cannot take this chat.</exception>
    public Task<ChatResponse> GetResponseAsync(
        IEnumerable<ChatMessage> messages,
        ChatOptions? options = null,
        CancellationToken cancellationToken = default
    ) => GetStreamingResponseAsync(messages, options, cancellationToken).ToChatResponseAsync(cancellationToken);

    /// <summary>Answers token by token. Cancelling, or leaving the enumeration, ends the answer at the next
    /// token.</summary>
    /// <inheritdoc />
    public async IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages,
        ChatOptions? options = null,
        [EnumeratorCancellation] CancellationToken cancellationToken = default
    )
    {
        ArgumentNullException.ThrowIfNull(messages);
        ObjectDisposedException.ThrowIf(closed, this);
        CheckRanges(options);
        var prompt = Prompt([.. messages], options?.Instructions);
        using var left = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, closing.Token);
        var pieces = Channel.CreateUnbounded<string>(new() { SingleReader = true, SingleWriter = true });
        var question = new Question(
            prompt,
            SamplingOf(options, prompt.Length),
            [.. options?.StopSequences?.Where(end => !string.IsNullOrEmpty(end)) ?? []],
            pieces.Writer,
            left.Token
        );
        Ask(question, cancellationToken);
        var updates = new AnswerUpdates(metadata.DefaultModelId);
        try
        {
            await foreach (var piece in pieces.Reader.ReadAllAsync(cancellationToken).ConfigureAwait(false))
                yield return updates.Piece(piece);
            yield return updates.Last(prompt.Length, question.Tokens, question.Cut);
        }
        finally
        {
            await left.CancelAsync().ConfigureAwait(false);
        }
    }

    private static void CheckRanges(ChatOptions? options)
    {
        if (
            options
            is { Temperature: not (null or >= 0) }
                or { TopP: not (null or (>= 0 and <= 1)) }
                or { MaxOutputTokens: < 0 }
        )
            throw new ArgumentOutOfRangeException(
                nameof(options),
                "Temperature and MaxOutputTokens are 0 or more, TopP is from 0 to 1."
            );
    }

    private Sampling SamplingOf(ChatOptions? options, int promptLength)
    {
        var defaults = new Sampling();
        return new(
            Math.Min(options?.MaxOutputTokens ?? defaults.MaxTokens, spec.MaxPositions - promptLength),
            options?.Temperature ?? defaults.Temperature,
            options?.TopP ?? defaults.TopP,
            options?.Seed is { } seed ? unchecked((int)seed) : Random.Shared.Next()
        );
    }

    /// <inheritdoc />
    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey is not null ? null
            : serviceType == typeof(ChatClientMetadata) ? metadata
            : serviceType.IsInstanceOfType(this) ? this
            : null;
    }

    /// <summary>Ends what is being answered and frees the model.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref closed, true))
            return;
        questions.CompleteAdding();
        closing.Cancel();
        thread.Join();
        questions.Dispose();
        closing.Dispose();
    }

    private Decoder Load(
        string source,
        string? revision,
        string? adapter,
        TextGeneratorOptions options,
        CancellationToken stop
    )
    {
        stop.ThrowIfCancellationRequested();
        var folder = new InputFetcher(ProcessEnvironment.HubSettings(options.Offline), () => new Silent())
            .FetchModel(ModelSource.Parse(source, Directory.GetCurrentDirectory()), revision, stop)
            .Folder;
        spec = ModelSpec.Read(folder);
        text = new(folder, spec.EndOfTurn);
        var trained = adapter is null ? null : PeftAdapter.Read(adapter, spec).Form;
        var form = BaseForm.Asked(trained, options.Quantize, options.Unquantized, options.Dtype);
        var backend = Backend.Load(options.Backend, ProcessEnvironment.BackendEnvironment());
        using var noGc = new NoGcScope();
        var model = ModelLoader.Load(
            folder,
            spec,
            form.Into(new()),
            ModelLoader.ComputeType(form.Dtype, backend),
            backend.Device
        );
        try
        {
            if (adapter is not null)
                AdapterFiles.Load(adapter, model, dropout: 0);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    private int[] Prompt(IReadOnlyList<ChatMessage> messages, string? instructions)
    {
        if (messages.Contains(null!))
            throw new ArgumentException("A message is null.", nameof(messages));
        if (
            messages
                .SelectMany(message => message.Contents)
                .FirstOrDefault(content => content is DataContent or UriContent) is
            { } other
        )
            throw new UserFault(
                "This model reads text only.",
                found: $"a message with {other.GetType().Name}",
                next: "leave it out"
            );
        var chat = messages.Select(message => (message.Role.Value, message.Text)).ToList();
        if (instructions is not null)
            chat.Insert(0, ("system", instructions));
        if (chat.Count == 0)
            throw new UserFault("There is nothing to answer.", found: "no message", next: "ask with a user's message");
        var prompt =
            text.Template is { } template
                ? text.Tokenizer.Encode(
                    template.Render(
                        [.. chat.Select(turn => new JsonObject { ["role"] = turn.Value, ["content"] = turn.Text })],
                        addGenerationPrompt: true
                    )
                )
            : chat is [var (_, only)] ? text.Tokenizer.Encode(only, addSpecial: true)
            : throw new UserFault(
                "This model has no chat template, so it goes on from one message only.",
                found: $"{chat.Count} messages",
                next: "send one message, or take a model that was made for chats"
            );
        return prompt.Length > 0 && prompt.Length < spec.MaxPositions
            ? prompt
            : throw new UserFault(
                "The model cannot read this chat.",
                found: $"{prompt.Length:N0} tokens",
                next: $"keep it between 1 and {spec.MaxPositions - 1:N0} tokens"
            );
    }

    private void Ask(Question question, CancellationToken stop)
    {
        try
        {
            questions.Add(question, stop);
        }
        catch (InvalidOperationException)
        {
            throw new ObjectDisposedException(nameof(TextGenerator)); // by another thread, just now
        }
    }

    private void Answer(Decoder model, Question question)
    {
        try
        {
            question.Stop.ThrowIfCancellationRequested();
            var (stream, shown) = (new TokenStream(text.Tokenizer), new StopSequences(question.Ends));
            foreach (var id in Generation.Run(model, question.Prompt, text.EndOfTurn, question.Sampling))
            {
                question.Stop.ThrowIfCancellationRequested();
                question.Tokens++;
                Show(shown.Add(stream.Add(id)));
                if (shown.Reached)
                    break;
            }
            Show(shown.Add(stream.End()) + shown.End());
            question.Cut = !shown.Reached && question.Tokens == question.Sampling.MaxTokens;
            question.Pieces.Complete();
        }
        catch (OperationCanceledException) when (closing.IsCancellationRequested)
        {
            question.Pieces.Complete(new ObjectDisposedException(nameof(TextGenerator)));
        }
        catch (Exception e)
        {
            question.Pieces.Complete(e);
        }

        void Show(string piece)
        {
            if (piece.Length > 0)
                question.Pieces.TryWrite(piece);
        }
    }

    /// <summary>What is asked, and how its answer ended.</summary>
    private sealed record Question(
        int[] Prompt,
        Sampling Sampling,
        string[] Ends,
        ChannelWriter<string> Pieces,
        CancellationToken Stop
    )
    {
        /// <summary>Tokens of the answer.</summary>
        public int Tokens { get; set; }

        /// <summary>Whether it would have gone on.</summary>
        public bool Cut { get; set; }
    }

    private sealed class Silent : IPullWatcher
    {
        public void Note(string text) { }

        public void Advance(string file, long done, long size, long resumed) { }
    }
}
