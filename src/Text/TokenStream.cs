namespace Memopt.Text;

/// <summary>Decodes tokens as they come. Text is given out as soon as it can no longer change: a character whose bytes
/// are spread over several tokens waits for the last of them. All that is given out, joined, is what decoding at once
/// gives. A token costs the decoding of the few before it, however long the text is.
/// </summary>
public sealed class TokenStream(Tokenizer tokenizer, bool skipSpecial = true)
{
    private const int LongestWait = 16; // tokens; broken bytes must not be held for ever

    // the tokens given out last, for what decoders do at a beginning, and those that wait
    private readonly List<int> window = [];
    private string known = ""; // the text of the first of them
    private int knownCount;

    /// <summary>Takes a token; the text that is certain since the last call, which may be none.</summary>
    public string Add(int id)
    {
        if (!tokenizer.HasText(id, skipSpecial))
            return "";
        window.Add(id);
        var text = tokenizer.Decode(window, skipSpecial);
        if (text.Length <= known.Length || text.EndsWith('\uFFFD') && window.Count - knownCount < LongestWait)
            return "";
        var fresh = text[known.Length..];
        window.RemoveRange(0, knownCount);
        (known, knownCount) = (tokenizer.Decode(window, skipSpecial), window.Count);
        return fresh;
    }

    /// <summary>The text that still waited.</summary>
    public string End()
    {
        var rest = tokenizer.Decode(window, skipSpecial)[known.Length..];
        window.Clear();
        (known, knownCount) = ("", 0);
        return rest;
    }
}
