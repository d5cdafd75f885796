using System.Text.RegularExpressions;

namespace Memopt.Tracking;

/// <summary>Keeps secrets out of what is recorded: by the name of an environment value, and by the look of any value.</summary>
public static partial class Secrets
{
    /// <summary>What stands in a secret's place.</summary>
    public const string Redacted = "[redacted]";

    /// <summary>A value without the secrets in it; all of it when its name says that it is one.</summary>
    public static string Redact(string name, string value) => value.Length > 0 && Telling().IsMatch(name) ? Redacted : Redact(value);

    /// <summary>A text with tokens, keys, signatures and passwords of addresses replaced.</summary>
    public static string Redact(string text) => Looks().Replace(text, match => match.Groups["keep"].Value + Redacted);

    /// <summary>A text of many lines, source or a diff of it: as <see cref="Redact(string)"/>, and values that lines give to names which say that they are secrets.</summary>
    public static string RedactLines(string text) => Assigned().Replace(Redact(text), match => Telling().IsMatch(match.Groups["name"].Value) ? match.Groups["keep"].Value + Redacted : match.Value);

    internal static RunStart Redact(RunStart start) => start with
    {
        Config = Redact(start.Config),
        Overrides = start.Overrides.ToDictionary(item => item.Key, item => Redact(item.Key, item.Value)),
        Environment = start.Environment.ToDictionary(item => item.Key, item => Redact(item.Key, item.Value)),
        Tags = start.Tags.ToDictionary(item => item.Key, item => Redact(item.Key, item.Value)),
    };

    // Whole words of a name only: "tokenizer" and "tokens" are none.
    [GeneratedRegex(@"(?<![A-Za-z])(token|secret|password|passwd|pwd|credentials?|sas|authorization|(api|access|account|private|secret|signing|encryption)[_.\-]?keys?|connection[_.\-]?string)(?![a-z])", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex Telling();

    [GeneratedRegex(@"^(?<keep>[-+ ]?[ \t]*(export[ \t]+|set[ \t]+|const[ \t]+|let[ \t]+|var[ \t]+|string[ \t]+)?[""']?(?<name>[A-Za-z_][\w.\-]*)[""']?[ \t]*[:=][ \t]*)[^ \t\r\n][^\r\n]*", RegexOptions.ExplicitCapture | RegexOptions.Multiline | RegexOptions.IgnoreCase)]
    private static partial Regex Assigned();

    [GeneratedRegex("""
        (?<keep>://[^/\s:@"']*:)[^@/\s"']+(?=@)
        | (?<keep>[?&](sig|sv_sig|token|access_token|api_key|apikey|password|X-Amz-Signature|X-Amz-Credential)=)[^&\s"']+
        | (?<keep>(AccountKey|SharedAccessSignature|SharedAccessKey|Password|Pwd)=)[^;\s"']+
        | (?<keep>\bBearer\s+)[A-Za-z0-9._~+/=-]{8,}
        | \b(hf|ms)_[A-Za-z0-9]{20,} | \bms-[0-9a-f]{8}-[0-9a-f-]{27} | \bgh[pousr]_[A-Za-z0-9]{20,} | \bgithub_pat_\w{20,} | \bsk-[A-Za-z0-9_-]{20,} | \bxox[abprs]-[A-Za-z0-9-]{10,} | \bAKIA[0-9A-Z]{16}\b
        | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+
        | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----[\s\S]*?(-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|$)
        """, RegexOptions.IgnorePatternWhitespace | RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant)]
    private static partial Regex Looks();
}
