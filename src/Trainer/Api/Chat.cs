using System.Buffers;
using System.Security.Cryptography;
using System.Text.Encodings.Web;
using System.Text.Json;
using Memopt.Core;
using Microsoft.Extensions.AI;

namespace Memopt;

/// <summary>One turn of a <see cref="Chat"/>.</summary>
/// <param name="Role">Who speaks: system, user, assistant or tool.</param>
/// <param name="Content">What is said.</param>
public sealed record ChatTurn(string Role, string Content);

/// <summary>A chat to learn from: loss is taken on the assistant's turns.</summary>
/// <example><code>
/// var chat = Chat.Of("What part of speech is \"serendipity\"?", "noun");
/// </code></example>
/// <param name="turns">In their order.</param>
public sealed class Chat(params IReadOnlyList<ChatTurn> turns)
{
    private static readonly JsonWriterOptions plain = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>In their order.</summary>
    public IReadOnlyList<ChatTurn> Turns { get; } = turns;

    /// <summary>A question and its answer.</summary>
    /// <param name="prompt">The user's turn.</param>
    /// <param name="answer">The assistant's.</param>
    /// <param name="system">What comes before both, or null.</param>
    public static Chat Of(string prompt, string answer, string? system = null) =>
        new([
            .. system is null ? Array.Empty<ChatTurn>() : [new("system", system)],
            new("user", prompt),
            new("assistant", answer),
        ]);

    /// <summary>The texts of messages.</summary>
    public static Chat From(IEnumerable<ChatMessage> messages) =>
        new([.. messages.Select(message => new ChatTurn(message.Role.Value, message.Text))]);

    /// <summary>As messages, to ask an <see cref="IChatClient"/> with.</summary>
    public IReadOnlyList<ChatMessage> ToMessages() =>
        [.. Turns.Select(turn => new ChatMessage(new(turn.Role), turn.Content))];

    /// <summary>Writes chats as JSON Lines, the form that <c>data.train</c> and <c>data.eval</c> read. The same chats
    /// give the same bytes; they are not held in memory.</summary>
    /// <param name="file">Written anew.</param>
    /// <param name="chats">Read once.</param>
    public static void WriteLines(string file, IEnumerable<Chat> chats) => Write(file, chats, default);

    /// <summary>Writes chats into a folder under a name made of their content; a file that is there already is kept as
    /// it is.</summary>
    internal static string Keep(string folder, string role, IEnumerable<Chat> chats, CancellationToken stop)
    {
        Directory.CreateDirectory(folder);
        using var staged = new StagedPath(Path.Combine(folder, $".{role}-{Guid.NewGuid():N}"));
        var final = Path.Combine(folder, $"{role}-{Write(staged.Path, chats, stop)[..16]}.jsonl");
        if (!File.Exists(final) || new FileInfo(final).Length != new FileInfo(staged.Path).Length)
            staged.MoveTo(final);
        return final;
    }

    /// <summary>Gives the sha256 of what is written.</summary>
    private static string Write(string file, IEnumerable<Chat> chats, CancellationToken stop)
    {
        using var stream = new FileStream(file, FileMode.Create);
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var line = new ArrayBufferWriter<byte>();
        using var json = new Utf8JsonWriter(line, plain);
        foreach (var chat in chats)
        {
            if (chat?.Turns is null || chat.Turns.Any(turn => turn?.Role is null || turn.Content is null))
                throw new ArgumentException("A chat, or a turn of one, is null.", nameof(chats));
            stop.ThrowIfCancellationRequested();
            json.WriteStartObject();
            json.WriteStartArray("messages");
            foreach (var turn in chat.Turns)
            {
                json.WriteStartObject();
                json.WriteString("role", turn.Role);
                json.WriteString("content", turn.Content);
                json.WriteEndObject();
            }
            json.WriteEndArray();
            json.WriteEndObject();
            json.Flush();
            line.Write("\n"u8);
            stream.Write(line.WrittenSpan);
            sha.AppendData(line.WrittenSpan);
            line.ResetWrittenCount();
            json.Reset();
        }
        return Convert.ToHexStringLower(sha.GetHashAndReset());
    }
}
