using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Memopt.Core;

/// <summary>Keeps secrets out of what leaves the process: by the name that a value has (token, api_key, password, …),
/// in settings, tags and JSON at any depth, and by the look of any text (signed addresses, passwords in addresses,
/// tokens of known services), also where an address is escaped for JSON, HTML or another address. A text that takes
/// longer than a minute to look through is replaced whole.
/// </summary>
public static partial class Secrets
{
    /// <summary>What stands in a secret's place.</summary>
    public const string Redacted = "[redacted]";

    private const int Patience = 60_000;
    private const RegexOptions Plain = RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant;

    private static readonly JsonSerializerOptions compact =
            new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping },
        indented = new(compact) { WriteIndented = true };

    private static readonly SearchValues<string> signs = SearchValues.Create(
        [
            "://",
            "%3A",
            "%253A",
            ":\\/",
            "sig",
            "token",
            "secret",
            "pass",
            "pwd",
            "key",
            "credential",
            "cookie",
            "webhook",
            "conn",
            "auth",
            "bearer",
            "sas",
            "jwt",
            "code",
            "hf_",
            "ms_",
            "ms-",
            "npm_",
            "gh",
            "glpat-",
            "sk-",
            "xox",
            "AKIA",
            "ASIA",
            "AIza",
            "eyJ",
            "SharedAccess",
        ],
        StringComparison.OrdinalIgnoreCase
    );

    /// <summary>A value without the secrets in it; all of it when its name says that it is one.</summary>
    public static string Redact(string name, string value) =>
        value.Length > 0 && Tells(name) ? Redacted : Redact(value);

    /// <summary>A text, or JSON, with tokens, keys, signatures and passwords replaced.</summary>
    public static string Redact(string text)
    {
        try
        {
            // One of these is in every secret that is known; most texts have none, and this is a hundred times as fast.
            return !text.AsSpan().ContainsAny(signs) ? text
                : text.AsSpan().TrimStart() is ['{' or '[', ..] ? Json(text) ?? Text(text)
                : Text(text);
        }
        catch (RegexMatchTimeoutException)
        {
            return Redacted;
        }
    }

    /// <summary>A text of many lines, source or a diff of it: as <see cref="Redact(string)"/>, and values that lines
    /// give to names which say that they are secrets.</summary>
    public static string RedactLines(string text)
    {
        try
        {
            return Assigned()
                .Replace(
                    Text(text),
                    match => Tells(match.Groups["name"].Value) ? match.Groups["keep"].Value + Redacted : match.Value
                );
        }
        catch (RegexMatchTimeoutException)
        {
            return Redacted;
        }
    }

    /// <summary>Whether a name says that its value is a secret. <c>tokenizer</c>, <c>max_tokens</c> and
    /// <c>eos_token</c> do not.</summary>
    public static bool Tells(string name) => name.Length <= 1024 && Telling().IsMatch(Words().Replace(name, "_"));

    /// <summary>Values by name, those of secrets replaced.</summary>
    public static Dictionary<string, string> Redact(IReadOnlyDictionary<string, string> values) =>
        values.ToDictionary(item => item.Key, item => Redact(item.Key, item.Value));

    private static string Text(string text) =>
        Quoted()
            .Replace(
                Looks().Replace(text, match => match.Groups["keep"].Value + Redacted),
                match => Tells(match.Groups["name"].Value) ? match.Groups["keep"].Value + Redacted : match.Value
            );

    /// <summary>JSON with the values of telling names replaced, written anew only where there was one; null when it is
    /// no JSON.</summary>
    private static string? Json(string text)
    {
        try
        {
            if (JsonNode.Parse(text) is not { } root)
                return null;
            return Changed(root) ? root.ToJsonString(text.Contains('\n') ? indented : compact) : text;
        }
        catch (Exception e) when (e is JsonException or ArgumentException)
        {
            return null; // cut off, too deep, or a name twice
        }
    }

    private static bool Changed(JsonNode node)
    {
        var changed = false;
        if (node is JsonObject map)
        {
            foreach (var (name, value) in map.ToList())
            {
                if (value is not null && Tells(name) && !Harmless(value))
                    (map[name], changed) = (Redacted, true);
                else if (value is not null && New(value) is { } other)
                    (map[name], changed) = (other, true);
                else if (value is JsonObject or JsonArray)
                    changed |= Changed(value);
            }
        }
        else if (node is JsonArray list)
        {
            for (var i = 0; i < list.Count; i++)
            {
                if (list[i] is { } value && New(value) is { } other)
                    (list[i], changed) = (other, true);
                else if (list[i] is JsonObject or JsonArray)
                    changed |= Changed(list[i]!);
            }
        }
        return changed;

        static string? New(JsonNode value) =>
            value.GetValueKind() == JsonValueKind.String
            && value.GetValue<string>() is var text
            && Redact(text) is var clean
            && clean != text
                ? clean
                : null;
        static bool Harmless(JsonNode value) =>
            value.GetValueKind() is JsonValueKind.True or JsonValueKind.False
            || (value.GetValueKind() == JsonValueKind.String && value.GetValue<string>() is "" or Redacted);
    }

    // Where a name has a new word: apiKey, HFToken, api-key, api.key.
    [GeneratedRegex("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+", RegexOptions.CultureInvariant)]
    private static partial Regex Words();

    [GeneratedRegex(
        """
            (?<=^|_)(
              (?<!(^|_)(bos|eos|pad|unk|cls|sep|mask|bot|eot|image|audio|video|special|added
                  |start|end|stop|begin|next|first|last|per)_)
                ((access|auth|api|bearer|hf|hub|id|refresh|sas|session)_?)?
                token(?!_(ids?|types?|count|length|classification)(_|$))
            | secrets? | passwords? | passwd | passphrase | pwd | credentials? | sas | authorization | cookies? | jwt
            | webhook(_url)?
            | ((api|access|account|private|secret|signing|encryption|storage|master
                |subscription|ssh|shared_access|client|license)_?)keys?
            | conn(ection)?_?str(ing)?
            )(?=_|$)
            """,
        Plain | RegexOptions.IgnoreCase | RegexOptions.IgnorePatternWhitespace
    )]
    private static partial Regex Telling();

    [GeneratedRegex(
        @"^(?<keep>[-+ ]?[ \t]*(export[ \t]+|set[ \t]+|const[ \t]+|let[ \t]+|var[ \t]+|string[ \t]+)?"
            + @"[""']?(?<name>[A-Za-z_][\w.\-]*)[""']?[ \t]*[:=][ \t]*)[^ \t\r\n][^\r\n]*",
        Plain | RegexOptions.Multiline | RegexOptions.IgnoreCase,
        Patience
    )]
    private static partial Regex Assigned();

    // "api_key": "…" within a text, its quotes escaped or not.
    [GeneratedRegex(
        """
            (?<keep>\\{0,16}["'](?<name>[\w.\-\ ]{1,128})\\{0,16}["'][ ]*[:=][ ]*)
            ( (?<quote>["'])(?!\[redacted\])(\\.|(?!\k<quote>)[^\\\r\n])*\k<quote>?
              | \\{1,16}["'](?!\[redacted\])[^\\"'\r\n]*(\\{1,16}["'])? | [0-9.eE+\-]+ )
            """,
        Plain | RegexOptions.IgnorePatternWhitespace,
        Patience
    )]
    private static partial Regex Quoted();

    // Parameters of an address. JSON writes & as \u0026 and + as \u002B, HTML writes & as &amp;, an address within an
    // address as %26 or %2526.
    private const string Parameter = """
        ([\w.\-]{0,64}[_.\-])?(sig|sign|signature|[a-z]{0,16}token|credential|secret|password|passwd|pwd|key
          |api_?key|[a-z]{0,16}access_?key(id)?|account_?key|auth|authorization|sas|jwt|code)
        """;

    private const string Connection = "(AccountKey|SharedAccessSignature|SharedAccessKey|Password|Pwd)";

    // A character of a user's name or password in an address within an address.
    private const string User = """((?!%(25){0,8}2F)[^/\s:@"'\\])""";

    // Part of a value that is written for JSON; \u0026 and escaped quotes, spaces and angle brackets end it.
    private const string Escaped = @"\\{1,16}u00(?!2[0267]|3[ce])[0-9a-f]{2}";

    [GeneratedRegex(
        $$"""
            (?<keep>:\\?/\\?/[^/\s:@"'\\]{0,256}:)[^/\s"'\\]{1,2048}(?=@)
            | (?<keep>%(25){0,8}3A(%(25){0,8}2F){2}{{User}}{0,256}?%(25){0,8}3A){{User}}{1,2048}(?=%(25){0,8}40)
            | (?<keep>:\\?/\\?/)[^/\s:@"'\\]{20,2048}(?=@)
            | (?<keep>([?&]|&(amp|\#38|\#x26);|\\{1,16}u0026|\\{1,16}u003f){{Parameter}}(=|\\{1,16}u003d))
              ({{Escaped}}|[^&\s"'<>\\])+
            | (?<keep>%(25){0,8}(26|3F){{Parameter}}%(25){0,8}3D)(%(?!(25){0,8}26)|[^&\s"'<>\\%])+
            | (?<keep>{{Connection}}(=|\\{1,16}u003d))({{Escaped}}|[^;\s"'\\])+
            | (?<keep>{{Connection}}%(25){0,8}3D)(%(?!(25){0,8}3B)|[^;\s"'\\%])+
            | (?<keep>\b(?-i:Bearer)(\s+|%20)|\bauthorization["']?\s*[:=]\s*["']?(basic|digest|token)\s+)
              [A-Za-z0-9._~+/=-]{8,}
            | ((?<![A-Za-z0-9_-])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4}))(?-i:
                (hf|ms|npm)_[A-Za-z0-9]{16,} | ms-[0-9a-f]{8}-[0-9a-f-]{27}
                | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,} | glpat-[\w-]{20,}
                | sk-[A-Za-z0-9_-]{20,} | xox[abeprs]-[A-Za-z0-9-]{10,} | (AKIA|ASIA)[0-9A-Z]{16}\b | AIza[\w-]{35}
                | eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+ )
            | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----[\s\S]*?(-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|$)
            """,
        Plain | RegexOptions.IgnorePatternWhitespace | RegexOptions.IgnoreCase,
        Patience
    )]
    private static partial Regex Looks();
}
