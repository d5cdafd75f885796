using System.Text.Json;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Core.Tests;
using Memopt.Text.Tokenizers;

namespace Memopt.Text.Tests;

/// <summary>Every part of a tokenizer in turn, compared with the Rust library on the same texts.</summary>
public sealed class TokenizerPartsTests : IDisposable
{
    private static readonly int texts = Environment.GetEnvironmentVariable("MEMOPT_TESTS_FULL") == "1" ? 600 : 250;

    private readonly string folder = Directory.CreateTempSubdirectory("memopt-parts-").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    /// <summary>A base tokenizer and the parts to put in it, a line each: base | part | JSON.</summary>
    private const string Parts = """
        nano | normalizer | {"type":"NFC"}
        nano | normalizer | {"type":"NFD"}
        nano | normalizer | {"type":"NFKC"}
        nano | normalizer | {"type":"NFKD"}
        nano | normalizer | {"type":"Lowercase"}
        nano | normalizer | {"type":"StripAccents"}
        nano | normalizer | {"type":"Sequence","normalizers":[{"type":"NFD"},{"type":"StripAccents"},{"type":"Lowercase"}]}
        nano | normalizer | {"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}
        nano | normalizer | {"type":"BertNormalizer","clean_text":false,"handle_chinese_chars":false,"strip_accents":true,"lowercase":false}
        nano | normalizer | {"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":false,"lowercase":true}
        nano | normalizer | {"type":"Replace","pattern":{"String":"  "},"content":"<2>"}
        nano | normalizer | {"type":"Replace","pattern":{"Regex":"[a-e]+|\\d"},"content":""}
        nano | normalizer | {"type":"Prepend","prepend":"▁x"}
        nano | normalizer | {"type":"Strip","strip_left":true,"strip_right":false}
        nano | normalizer | {"type":"Strip","strip_left":true,"strip_right":true}
        nano | normalizer | {"type":"Sequence","normalizers":[]}
        nano | normalizer | PRECOMPILED
        nano | pre_tokenizer | {"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}
        nano | pre_tokenizer | {"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Metaspace","replacement":"▁","prepend_scheme":"never","split":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Metaspace","replacement":"_","add_prefix_space":true},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Whitespace"},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"BertPreTokenizer"},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Punctuation","behavior":"Isolated"},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Punctuation","behavior":"Contiguous"},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"CharDelimiterSplit","delimiter":" "},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+|[a-c]"},"behavior":"Removed","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+|[a-c]"},"behavior":"Isolated","invert":true},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s|[a-c]"},"behavior":"MergedWithPrevious","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s|[a-c]"},"behavior":"MergedWithNext","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s|[a-c]"},"behavior":"Contiguous","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s|[a-c]"},"behavior":"Removed","invert":true},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithNext","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[BYTES,{"type":"Split","pattern":{"Regex":"Ġ|[a-c]"},"behavior":"Isolated","invert":false}]}
        nano | pre_tokenizer | {"type":"Split","pattern":{"Regex":"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},"behavior":"Removed","invert":true},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Punctuation","behavior":"Contiguous"},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},{"type":"Digits","individual_digits":false},{"type":"Split","pattern":{"Regex":"[0-9][0-9][0-9]"},"behavior":"Isolated","invert":false}]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s?\\p{L}+|\\s?\\p{P}+|[一-龥ࠀ-一가-퟿]+|\\r?\\n|[\\u0600-\\u06FF]+"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":" ?[^(\\s|[.,!?…。，、।۔،])]+"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s?[A-Za-zµÀ-ÖØ-öø-ƺᴀ-ᴫＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𝐀-𝟋𞤀-𞥃]+"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?=(\\d{3})+(?!\\d))"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s++$|\\s*[\\r\\n]|\\s+(?!\\S)|\\s"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\w+|[^\\w\\s]+"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[^\\W\\d_]+|[^\\P{L}]|[\\S]"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\B"},"behavior":"MergedWithNext","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"x*"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[[:alpha:]]+|[[:^alnum:]]|[[:punct:]]"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{Latin}+|\\p{Cyrillic}+|\\p{^L}|\\p{Uppercase_Letter}"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[\\u0800-\\uffff]+|\\x41|\\x{1F600}|[a-c[x-z]]+|[^a-z&&[aeiou]]|\\h|\\R"},"behavior":"Isolated","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[^一-龥]+"},"behavior":"Removed","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[0-9]{,2}[a-z]|a{|\\\\|[\\]\\[a-c\\-]+|[]a-]+|😀"},"behavior":"Isolated","invert":false},BYTES]}
        nano | normalizer | {"type":"Nmt"}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"FixedLength","length":3},BYTES]}
        nano | added_tokens | [{"id":0,"content":"e\u0301","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":false},{"id":0,"content":"é","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":true},{"id":0,"content":"\u212b","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":false},{"id":0,"content":"\u00c5","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":false}]
        unigram | decoder | {"type":"CTC","pad_token":"▁the","word_delimiter_token":"▁","cleanup":true}
        unigram | decoder | {"type":"CTC","pad_token":"s","word_delimiter_token":"|","cleanup":false}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[[:punct:]]|[[:upper:]]"},"behavior":"Removed","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\w|\\p{C}"},"behavior":"Removed","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[\\w]|[[:cntrl:]]|\\p{Punct}"},"behavior":"Removed","invert":false},BYTES]}
        nano | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[[:graph:]&&[^a-z]]+|\\p{Emoji}"},"behavior":"Contiguous","invert":false},BYTES]}
        nano | post_processor | {"type":"RobertaProcessing","sep":["<|im_end|>",2],"cls":["<|im_start|>",1],"trim_offsets":true,"add_prefix_space":true}
        nano | post_processor | {"type":"Sequence","processors":[{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":true},{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<|im_start|>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<|im_end|>","type_id":0}}],"pair":[],"special_tokens":{"<|im_start|>":{"id":"<|im_start|>","ids":[1],"tokens":["<|im_start|>"]},"<|im_end|>":{"id":"<|im_end|>","ids":[2],"tokens":["<|im_end|>"]}}}]}
        nano | added_tokens | [{"id":0,"content":"the","single_word":true,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":0,"content":"é","single_word":false,"lstrip":true,"rstrip":true,"normalized":true,"special":false},{"id":0,"content":"speech adverb","single_word":false,"lstrip":false,"rstrip":true,"normalized":false,"special":false},{"id":0,"content":"a","single_word":true,"lstrip":true,"rstrip":true,"normalized":true,"special":false}]
        nano | model.ignore_merges | true
        unigram | decoder | {"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}
        unigram | decoder | {"type":"Metaspace","replacement":"▁","prepend_scheme":"never","split":true}
        unigram | decoder | {"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}
        unigram | decoder | {"type":"Sequence","decoders":[{"type":"Replace","pattern":{"Regex":"[▁a]"},"content":"-"},{"type":"Strip","content":"-","start":1,"stop":0}]}
        unigram | decoder | {"type":"BPEDecoder","suffix":"s"}
        unigram | decoder | {"type":"WordPiece","prefix":"▁","cleanup":true}
        unigram | decoder | null
        unigram | normalizer | PRECOMPILED
        unigram | normalizer | {"type":"Sequence","normalizers":[PRECOMPILED,{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}]}
        unigram | pre_tokenizer | {"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},{"type":"Metaspace","replacement":"▁","add_prefix_space":true}]}
        unigram | pre_tokenizer | null
        bytes | decoder | {"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}
        gaps | model.byte_fallback | true
        letters | model.fuse_unk | true
        wordpiece | decoder | {"type":"WordPiece","prefix":"##","cleanup":true}
        wordpiece | decoder | {"type":"WordPiece","prefix":"##","cleanup":false}
        wordpiece | model.max_input_chars_per_word | 5
        wordpiece | pre_tokenizer | {"type":"BertPreTokenizer"}
        words | pre_tokenizer | {"type":"Whitespace"}
        clip | decoder | {"type":"BPEDecoder","suffix":"</w>"}
        clip | model.unk_token | "x</w>"
        clip | model.fuse_unk | true
        """;

    [Fact]
    public void Tokenizer_parts_agree_with_the_Rust_library()
    {
        var cases = Parts.Split('\n').Select(line => line.Split(" | ", 3)).ToList();
        var files = cases.Select((part, index) => Write($"{index}", part[0], part[1], part[2])).ToList();
        var wrong = new List<string>();
        foreach (
            var (part, file, rows) in cases
                .Zip(files, Oracle.RustTokens(texts, [.. files]))
                .Where(entry => entry.Third[0].Rust is not null)
        )
        {
            var tokenizer = Tokenizer.Load(Path.GetDirectoryName(file)!);
            var differ = rows.Where(row => !tokenizer.Encode(row.Text, addSpecial: true).SequenceEqual(row.Rust!))
                .OrderBy(row => row.Text.Length)
                .ToList();
            if (differ is [var row, ..])
                wrong.Add(
                    $"{string.Join(" | ", part)}\n  {differ.Count}: {Show(row.Text)}\n  expected "
                        + $"{string.Join(' ', row.Rust!.Take(30))}\n  actual   "
                        + $"{string.Join(' ', tokenizer.Encode(row.Text, addSpecial: true).Take(30))}"
                );
            var misread = rows.Where(row => tokenizer.Decode(row.Rust!, skipSpecial: false) != row.RustText)
                .OrderBy(row => row.Text.Length)
                .ToList();
            if (misread is [var other, ..])
                wrong.Add(
                    $"{string.Join(" | ", part)}\n  {misread.Count}: decoded "
                        + $"{Show(tokenizer.Decode(other.Rust!, skipSpecial: false))}\n  expected "
                        + $"{Show(other.RustText!)}"
                );
        }
        Assert.True(wrong.Count == 0, $"{wrong.Count} parts differ:\n{string.Join('\n', wrong)}");
    }

    /// <summary>As the Rust library 0.22 answers; Unicode has since given them mappings, a class and the properties of
    /// accents and punctuation.</summary>
    [Theory]
    [
        InlineData("NFKC", "㋿①", "㋿1"),
        InlineData("NFKD", "ꟲ²", "ꟲ2"),
        InlineData("NFD", "𑤸é", "𑤸e\u0301"),
        InlineData("NFC", "𑤸e\u0301", "𑤸é")
    ]
    [
        InlineData("NFD", "a\u0345\u08D3\u0334", "a\u0345\u08D3\u0334"),
        InlineData("NFD", "a\u0345\u0316\u0334", "a\u0334\u0316\u0345")
    ]
    [
        InlineData("StripAccents", "a\u08D3\u0301", "a\u08D3"),
        InlineData("BertNormalizer", "a\u0301\u08D3\u0890", "a\u08D3\u0890")
    ]
    public void Normalizers_treat_new_characters_as_the_Rust_library_does(
        string normalizer,
        string text,
        string expected
    ) =>
        Assert.Equal(
            expected,
            Normalizer
                .Read(JsonDocument.Parse($$"""{"type":"{{normalizer}}"}""").RootElement)(NormalizedString.Of(text))
                .Text.ToString()
        );

    /// <summary>Whatever the file says, it is read or refused; any other exception would fail here.</summary>
    [Fact]
    public void Tokenizer_files_that_are_damaged_are_read_or_refused()
    {
        var random = new Random(3);
        string[] values =
        [
            "null",
            "1",
            "-1",
            "2.5",
            "\"\"",
            "\"x\"",
            "[]",
            "{}",
            "true",
            "[1]",
            "{\"type\":\"Sequence\"}",
            "99999999999",
        ];
        var lines = Parts.Split('\n').Where(line => !line.Contains("PRECOMPILED")).ToList();
        for (var i = 0; i < 400; i++)
        {
            var part = lines[random.Next(lines.Count)].Split(" | ", 3);
            var file = Write("damaged", part[0], part[1], part[2]);
            var json = Read(file);
            var at = json;
            // A way down from the top, past long lists.
            while (random.Next(5) > 0)
            {
                var below = at switch
                {
                    JsonObject { Count: > 0 } entry => entry.ElementAt(random.Next(Math.Min(entry.Count, 12))).Value,
                    JsonArray { Count: > 0 } list => list[random.Next(Math.Min(list.Count, 5))],
                    _ => null,
                };
                if (below is null)
                    break;
                at = below;
            }
            if (at.Parent is null)
                continue;
            at.ReplaceWith(JsonNode.Parse(values[random.Next(values.Length)]));
            File.WriteAllText(file, json.ToJsonString());
            try
            {
                var tokenizer = Tokenizer.Load(Path.GetDirectoryName(file)!);
                tokenizer.Decode(
                    tokenizer.Encode("the Quick\n brown 𝒳 é fox 12 <|im_start|> [CLS]", addSpecial: true)
                );
            }
            catch (UserFault) { }
            catch (Exception error)
            {
                Assert.Fail($"{at.GetPath()} of {string.Join(" | ", part)}: {error}");
            }
        }
    }

    private static string Show(string text) => JsonValue.Create(NormalizedString.WellFormed(text)).ToJsonString();

    private string Write(string name, string start, string part, string value)
    {
        var golden = Path.Combine(Repository.Root, "tests/Text.Tests/Golden/tokenizers");
        value = value
            .Replace("PRECOMPILED", File.ReadAllText(Path.Combine(golden, "precompiled.json")).Trim())
            .Replace(
                "BYTES",
                """{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}"""
            );
        var json = start switch
        {
            "unigram" or "wordpiece" => Read(Path.Combine(golden, $"{start}.json")),
            "bytes" => Bytes(Read(Path.Combine(golden, "unigram.json"))),
            "gaps" => Bytes(Read(Path.Combine(golden, "unigram.json")), without: 0xF0),
            "letters" => Letters(Read(Path.Combine(Repository.Nano, "tokenizer.json"))),
            "words" => Words(Read(Path.Combine(golden, "wordpiece.json"))),
            "clip" => Clip(Read(Path.Combine(Repository.Nano, "tokenizer.json"))),
            _ => Read(Path.Combine(Repository.Nano, "tokenizer.json")),
        };
        if (part.StartsWith("model.", StringComparison.Ordinal))
            json["model"]![part[6..]] = JsonNode.Parse(value);
        else
            json[part] = JsonNode.Parse(value);
        if (part == "added_tokens")
            Number(json);
        var target = Directory.CreateDirectory(Path.Combine(folder, name)).FullName;
        File.WriteAllText(Path.Combine(target, "tokenizer.json"), json.ToJsonString());
        return Path.Combine(target, "tokenizer.json");
    }

    /// <summary>The ids that the reference gives whatever the file says: the vocabulary's, then the next.</summary>
    private static void Number(JsonNode json)
    {
        var vocab = json["model"]!["vocab"]!.AsObject();
        var next = vocab.Count;
        foreach (var token in json["added_tokens"]!.AsArray())
            token!["id"] = vocab[(string)token["content"]!] is { } id ? (int)id : next++;
    }

    private static JsonNode Read(string file) => JsonNode.Parse(File.ReadAllText(file))!;

    /// <summary>With tokens for bytes, or all but one.</summary>
    private static JsonNode Bytes(JsonNode unigram, int without = -1)
    {
        foreach (var value in Enumerable.Range(0, 256).Where(value => value != without))
            unigram["model"]!["vocab"]!.AsArray().Add(new JsonArray($"<0x{value:X2}>", -20.0));
        unigram["model"]!["byte_fallback"] = true;
        return unigram;
    }

    private static JsonNode Words(JsonNode json)
    {
        json["model"] = new JsonObject
        {
            ["type"] = "WordLevel",
            ["vocab"] = json["model"]!["vocab"]!.DeepClone(),
            ["unk_token"] = "[UNK]",
        };
        return json;
    }

    /// <summary>Byte-pair encoding of letters with tokens for all bytes but one, as Gemma's has one for the tab
    /// instead.</summary>
    private static JsonNode Letters(JsonNode json)
    {
        var vocab = new JsonObject();
        string[] tokens =
        [
            "<unk>",
            .. "abcdefghijklmnopqrstuvwxyz \t".Select(letter => $"{letter}"),
            "th",
            "the",
            "  ",
            .. Enumerable.Range(0, 256).Where(value => value != '\t').Select(value => $"<0x{value:X2}>"),
        ];
        foreach (var token in tokens)
            vocab[token] = vocab.Count;
        json["model"] = new JsonObject
        {
            ["type"] = "BPE",
            ["vocab"] = vocab,
            ["merges"] = new JsonArray(new JsonArray("t", "h"), new JsonArray("th", "e"), new JsonArray(" ", " ")),
            ["unk_token"] = "<unk>",
            ["byte_fallback"] = true,
        };
        json["pre_tokenizer"] = json["post_processor"] = json["decoder"] = null;
        json["added_tokens"] = new JsonArray();
        return json;
    }

    /// <summary>Byte-pair encoding whose words end in a mark.</summary>
    private static JsonNode Clip(JsonNode json)
    {
        var vocab = new JsonObject();
        string[] tokens =
        [
            .. "abcdefghijklmnopqrstuvwxyz".SelectMany(letter => (string[])[$"{letter}", $"{letter}</w>"]),
            "th",
            "the</w>",
            "sp",
            "ee",
            "spee",
            "ch</w>",
            "speech</w>",
            "ing</w>",
            "in",
            "no",
            "noun</w>",
            "nou",
        ];
        foreach (var token in tokens)
            vocab[token] = vocab.Count;
        json["model"] = new JsonObject
        {
            ["type"] = "BPE",
            ["vocab"] = vocab,
            ["merges"] = new JsonArray([
                .. "t h|th e</w>|s p|e e|sp ee|c h</w>|spee ch</w>|i n|in g</w>|n o|no u|nou n</w>"
                    .Split('|')
                    .Select(pair => (JsonNode)pair),
            ]),
            ["end_of_word_suffix"] = "</w>",
        };
        json["pre_tokenizer"] = JsonNode.Parse("""{"type":"Whitespace"}""");
        json["decoder"] = JsonNode.Parse("""{"type":"BPEDecoder","suffix":"</w>"}""");
        json["post_processor"] = null;
        json["added_tokens"] = new JsonArray();
        return json;
    }
}
