using System.Text;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace Memopt.Tool.Cli;

/// <summary>Text as a terminal may have it. Names, settings, answers of servers and answers of models are strangers'
/// text, and a terminal obeys control characters in it: they could hide a line, set the window's title or type a
/// command. <see cref="Guard"/> lets nothing pass to a console without <see cref="Visible"/>.
/// </summary>
internal static class TerminalText
{
    // More characters than any line has.
    private const int Endless = 1 << 20;

    /// <summary>The process's streams as they are, for Spectre's consoles, which write commands of their own.</summary>
    public static TextWriter Output { get; private set; } = System.Console.Out;

    /// <inheritdoc cref="Output"/>
    public static TextWriter Error { get; private set; } = System.Console.Error;

    /// <summary>A text in which control characters, and those that turn the direction of what follows, are shown and
    /// do nothing: ␛ for an escape, \u202e for a right-to-left override, which is how JSON writes it too. Tabs and ends
    /// of lines stay.
    /// </summary>
    public static string Visible(string text)
    {
        var first = 0;
        while (first < text.Length && !Commands(text, first))
            first++;
        if (first == text.Length)
            return text;
        var shown = new StringBuilder(text, 0, first, text.Length + 16);
        for (var i = first; i < text.Length; i++)
        {
            if (!Commands(text, i))
                shown.Append(text[i]);
            else if (text[i] < ' ')
                shown.Append((char)('\u2400' + text[i]));
            else
                shown.Append($"\\u{(int)text[i]:x4}");
        }
        return shown.ToString();
    }

    /// <summary>Makes everything that is written through <see cref="System.Console"/> pass
    /// <see cref="Visible"/>.</summary>
    public static void Guard()
    {
        (Output, Error) = (System.Console.Out, System.Console.Error);
        System.Console.SetOut(new Writer(Output));
        System.Console.SetError(new Writer(Error));
    }

    /// <summary>Spectre's console over a stream: its own colours and moves pass, the text of what it shows as
    /// <see cref="Visible"/> gives it.</summary>
    /// <param name="stream"><see cref="Output"/> or <see cref="Error"/>.</param>
    /// <param name="redirected">Whether the stream is no terminal: a pipe or a file has no edge at which to break a
    /// line or leave out a column.</param>
    /// <param name="ansi">Whether colours are written.</param>
    public static IAnsiConsole Console(TextWriter stream, bool redirected, AnsiSupport ansi = AnsiSupport.Detect)
    {
        var console = AnsiConsole.Create(
            new AnsiConsoleSettings
            {
                Out = new Terminal(stream, !redirected),
                Ansi = redirected && ansi == AnsiSupport.Detect ? AnsiSupport.No : ansi,
            }
        );
        // A terminal that does not tell its width may have it in COLUMNS.
        if (redirected)
            console.Profile.Width = Endless;
        else if (int.TryParse(Environment.GetEnvironmentVariable("COLUMNS"), out var columns) && columns > 0)
            console.Profile.Width = columns;
        console.Pipeline.Attach(new Hook());
        return console;
    }

    private static bool Commands(string text, int at) =>
        text[at] switch
        {
            '\n' or '\t' => false,
            '\r' => at + 1 == text.Length || text[at + 1] != '\n',
            < ' ' or (>= '\u007f' and < '\u00a0') => true,
            '\u2028' or '\u2029' or (>= '\u202a' and <= '\u202e') or (>= '\u2066' and <= '\u2069') => true,
            _ => false,
        };

    private sealed class Writer(TextWriter inner) : TextWriter
    {
        public override Encoding Encoding => inner.Encoding;

        public override void Write(char value) => inner.Write(Visible(value.ToString()));

        public override void Write(char[] buffer, int index, int count) =>
            inner.Write(Visible(new string(buffer, index, count)));

        public override void Write(string? value) => inner.Write(value is null ? null : Visible(value));

        public override void WriteLine() => inner.WriteLine();

        public override void WriteLine(string? value) => inner.WriteLine(value is null ? null : Visible(value));

        public override void Flush() => inner.Flush();
    }

    private sealed class Terminal(TextWriter writer, bool terminal) : IAnsiConsoleOutput
    {
        private readonly AnsiConsoleOutput size = new(writer);

        public TextWriter Writer => writer;

        public bool IsTerminal => terminal;

        public int Width => size.Width;

        public int Height => size.Height;

        public void SetEncoding(Encoding encoding)
        {
            if (terminal)
                System.Console.OutputEncoding = encoding;
        }
    }

    /// <summary>The first hook of a console is its last to work: it sees what others have put in.</summary>
    private sealed class Hook : IRenderHook
    {
        public IEnumerable<IRenderable> Process(RenderOptions options, IEnumerable<IRenderable> renderables) =>
            renderables.Select(renderable => new Shown(renderable));
    }

    private sealed class Shown(IRenderable inner) : IRenderable
    {
        public Measurement Measure(RenderOptions options, int maxWidth) => inner.Measure(options, maxWidth);

        public IEnumerable<Segment> Render(RenderOptions options, int maxWidth) =>
            inner
                .Render(options, maxWidth)
                .Select(segment =>
                    segment.IsControlCode
                    || segment.IsLineBreak
                    || Visible(segment.Text) is var text && text == segment.Text
                        ? segment
                        : new Segment(text, segment.Style)
                );
    }
}
