using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Memopt.Text.Jinja;

internal enum TokenKind
{
    Text,
    OpenOutput,
    CloseOutput,
    OpenTag,
    CloseTag,
    Name,
    String,
    Integer,
    Float,
    Symbol,
    End,
}

internal readonly record struct Token(TokenKind Kind, string Value, int Line);

/// <summary>A template that cannot be read or run; becomes a fault that names the template.</summary>
internal sealed class JinjaException(string message) : Exception(message);

/// <summary>Splits a template into tokens, with trim_blocks and lstrip_blocks on, as transformers sets them.</summary>
internal sealed partial class Lexer(string source)
{
    private static readonly string[] Symbols =
    [
        "**",
        "//",
        "==",
        "!=",
        "<=",
        ">=",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        ":",
        "|",
        "=",
        "<",
        ">",
        "+",
        "-",
        "*",
        "/",
        "%",
        "~",
    ];

    private readonly List<Token> tokens = [];
    private int at;
    private int line = 1;

    public static List<Token> Read(string source)
    {
        // Line ends are unified and one at the end of the template is dropped, as Jinja does.
        source = source.Replace("\r\n", "\n").Replace('\r', '\n');
        if (source.EndsWith('\n'))
            source = source[..^1];
        var lexer = new Lexer(source);
        lexer.Run();
        return lexer.tokens;
    }

    private void Run()
    {
        var (trimSpace, trimLine) = (false, false);
        while (at < source.Length)
        {
            var open = NextOpen();
            var text = source[at..open];
            var kind = open < source.Length ? source[open + 1] : '\0';
            var mark = open + 2 < source.Length && kind != '\0' ? source[open + 2] : '\0';
            var kept = text;
            if (trimSpace)
                kept = kept.TrimStart();
            else if (trimLine && kept.StartsWith('\n'))
                kept = kept[1..];
            if (mark == '-')
                kept = kept.TrimEnd();
            else if (kind is '%' or '#' && mark != '+')
                kept = StripLine(
                    kept,
                    atLineStart: open - text.Length == 0
                        || source[open - text.Length - 1] == '\n'
                        || kept.Length < text.Length && text.StartsWith('\n')
                );
            if (kept.Length > 0)
                tokens.Add(new(TokenKind.Text, kept, line));
            line += text.Count(unit => unit == '\n');
            at = open;
            if (at >= source.Length)
                break;
            at += mark is '-' or '+' ? 3 : 2;
            if (kind == '#')
            {
                var close = source.IndexOf("#}", at, StringComparison.Ordinal);
                if (close < 0)
                    throw new JinjaException($"line {line}: a comment without its end");
                line += source.AsSpan(at, close - at).Count('\n');
                (trimSpace, trimLine) = (close > 0 && source[close - 1] == '-', true);
                at = close + 2;
            }
            else if (kind == '%' && Raw() is { } raw)
            {
                (trimSpace, trimLine) = raw;
            }
            else
            {
                (trimSpace, trimLine) = Code(kind == '%');
            }
        }
        tokens.Add(new(TokenKind.End, "", line));
    }

    /// <summary>A raw block, whose text is kept as it stands; null where the tag is another.</summary>
    private (bool TrimSpace, bool TrimLine)? Raw()
    {
        if (RawStart().Match(source, at) is not { Success: true, Length: var length })
            return null;
        var end = RawEnd().Match(source, at + length);
        if (!end.Success)
            throw new JinjaException($"line {line}: a raw block without its end");
        var text = source[(at + length)..end.Index];
        if (source[at + length - 3] == '-')
            text = text.TrimStart();
        else if (text.StartsWith('\n'))
            text = text[1..];
        var mark = source[end.Index + 2];
        text =
            mark == '-' ? text.TrimEnd()
            : mark == '+' ? text
            : StripLine(text, atLineStart: false);
        if (text.Length > 0)
            tokens.Add(new(TokenKind.Text, text, line));
        line += source.AsSpan(at, end.Index + end.Length - at).Count('\n');
        at = end.Index + end.Length;
        return (source[at - 3] == '-', source[at - 3] != '+');
    }

    [GeneratedRegex(@"\G\s*raw\s*[-+]?%\}")]
    private static partial Regex RawStart();

    [GeneratedRegex(@"\{%[-+]?\s*endraw\s*[-+]?%\}")]
    private static partial Regex RawEnd();

    private int NextOpen()
    {
        for (var i = at; i + 1 < source.Length; i++)
        {
            if (source[i] == '{' && source[i + 1] is '{' or '%' or '#' && source[i] == '{')
                return i;
        }
        return source.Length;
    }

    /// <summary>Drops the spaces between a line's start and a tag.</summary>
    private static string StripLine(string text, bool atLineStart)
    {
        var end = text.Length;
        while (end > 0 && text[end - 1] is ' ' or '\t' && end > 0)
            end--;
        return end > 0
            ? text[end - 1] == '\n'
                ? text[..end]
                : text
            : atLineStart
                ? ""
                : text;
    }

    private (bool TrimSpace, bool TrimLine) Code(bool tag)
    {
        tokens.Add(new(tag ? TokenKind.OpenTag : TokenKind.OpenOutput, "", line));
        var close = tag ? "%}" : "}}";
        var depth = 0;
        while (true)
        {
            while (at < source.Length && char.IsWhiteSpace(source[at]))
            {
                if (source[at++] == '\n')
                    line++;
            }
            if (at >= source.Length)
                throw new JinjaException($"line {line}: '{close}' is missing");
            var sign = source[at] is '-' or '+' ? 1 : 0;
            if (
                (depth == 0 || tag)
                && string.CompareOrdinal(source, at + sign, close, 0, 2) == 0
                && at + sign + 2 <= source.Length
            )
            {
                var (minus, plus) = (source[at] == '-', source[at] == '+');
                at += sign + 2;
                tokens.Add(new(tag ? TokenKind.CloseTag : TokenKind.CloseOutput, "", line));
                return (minus, tag && !plus);
            }
            var unit = source[at];
            if (char.IsLetter(unit) || unit == '_')
            {
                var start = at;
                while (at < source.Length && (char.IsLetterOrDigit(source[at]) || source[at] == '_'))
                    at++;
                tokens.Add(new(TokenKind.Name, source[start..at], line));
            }
            else if (char.IsAsciiDigit(unit))
                Number();
            else if (unit is '"' or '\'')
                Text(unit);
            else
            {
                var symbol =
                    Symbols.FirstOrDefault(item => string.CompareOrdinal(source, at, item, 0, item.Length) == 0)
                    ?? throw new JinjaException($"line {line}: '{unit}' is not expected");
                depth +=
                    symbol is "{" ? 1
                    : symbol is "}" ? -1
                    : 0;
                tokens.Add(new(TokenKind.Symbol, symbol, line));
                at += symbol.Length;
            }
        }
    }

    private void Number()
    {
        var start = at;
        if (
            source[at] == '0'
            && at + 2 < source.Length
            && source[at + 1] is 'x' or 'X' or 'b' or 'B'
            && char.IsAsciiHexDigit(source[at + 2])
        )
        {
            at += 2;
            while (at < source.Length && (char.IsAsciiHexDigit(source[at]) || source[at] == '_'))
                at++;
            tokens.Add(new(TokenKind.Integer, source[start..at].Replace("_", ""), line));
            return;
        }
        while (at < source.Length && (char.IsAsciiDigit(source[at]) || source[at] == '_'))
            at++;
        // After a dot it is an item: a.0.1 has no fraction in it.
        var real =
            at + 1 < source.Length
            && source[at] == '.'
            && char.IsAsciiDigit(source[at + 1])
            && tokens[^1] is not { Kind: TokenKind.Symbol, Value: "." };
        if (real)
        {
            at++;
            while (at < source.Length && char.IsAsciiDigit(source[at]))
                at++;
        }
        if (at < source.Length && source[at] is 'e' or 'E')
        {
            var digits = at + 1 < source.Length && source[at + 1] is '+' or '-' ? at + 2 : at + 1;
            if (digits < source.Length && char.IsAsciiDigit(source[digits]))
            {
                real = true;
                at = digits;
                while (at < source.Length && char.IsAsciiDigit(source[at]))
                    at++;
            }
        }
        tokens.Add(new(real ? TokenKind.Float : TokenKind.Integer, source[start..at].Replace("_", ""), line));
    }

    private void Text(char quote)
    {
        var text = new StringBuilder();
        for (at++; at < source.Length && source[at] != quote; at++)
        {
            if (source[at] == '\n')
                line++;
            if (source[at] != '\\' || at + 1 >= source.Length)
            {
                text.Append(source[at]);
                continue;
            }
            at++;
            Escape(text);
        }
        if (at >= source.Length)
            throw new JinjaException($"line {line}: a string without its end");
        at++;
        tokens.Add(new(TokenKind.String, text.ToString(), line));
    }

    /// <summary>What a backslash and the character at which the lexer is stand for.</summary>
    private void Escape(StringBuilder text)
    {
        switch (source[at])
        {
            case '\n':
                line++;
                break;
            case 'u':
                text.Append(Hex(4));
                break;
            case 'x':
                text.Append(Hex(2));
                break;
            case 'U':
                text.Append(Hex(8));
                break;
            case var letter when Unescaped(letter) is { } unit:
                text.Append(unit);
                break;
            default:
                text.Append('\\').Append(source[at]);
                break;
        }
    }

    private static char? Unescaped(char letter) =>
        letter switch
        {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\b',
            'f' => '\f',
            'v' => '\v',
            'a' => '\a',
            '0' => '\0',
            '\\' or '\'' or '"' => letter,
            _ => null,
        };

    private string Hex(int digits)
    {
        if (
            at + digits >= source.Length
            || !int.TryParse(source.AsSpan(at + 1, digits), NumberStyles.HexNumber, null, out var code)
            || code > 0x10FFFF
        )
            throw new JinjaException($"line {line}: a damaged \\{source[at]} escape");
        at += digits;
        return code < 0x10000 ? ((char)code).ToString() : char.ConvertFromUtf32(code);
    }
}
