// Writes texts and what two readings of tokenizers make of them; for each tokenizer one array of
// {text: base64 of UTF-16, js, rust, jsText, rustText}. "js" is @huggingface/tokenizers; "rust" is the Rust library that
// Python uses, or null where its binary does not run; the texts are the ids decoded again.
// usage: node tokens.mjs COUNT SEED special|plain|rust TOKENIZER.json...   (special: with the post-processor's tokens;
// rust: the same by the Rust library alone)
import { readFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";

const [count, seed, mode, ...files] = process.argv.slice(2);
const rustLibrary = await import("@anush008/tokenizers").then((library) => library.default, () => null);
const attempt = (make) => { try { return make(); } catch { return null; } };

let state = Number(seed) >>> 0;
const random = () => {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
const below = (n) => Math.floor(random() * n);
const pick = (list) => list[below(list.length)];
const times = (n, make) => Array.from({ length: n }, make).join("");

const words = "the What speech adverb noun running don't WE'LL it's they'RE straße naïve Ångström ĳsselmeer мир Привет 你好世界 こんにちは 안녕하세요 مرحبا שלום नमस्ते ไทย".split(" ");
const code = ["for (int i = 0; i < n; i++) {\n\t", "def f(x):\r\n    return x**2\n", "<div class=\"a\">&nbsp;</div>", "SELECT * FROM t WHERE a<>'b';", "\\u0041\\n", "a_b__c", "=>", "!!!???...", "http://x.y/z?q=1&r=%20#f"];
const emoji = ["😀", "👨‍👩‍👧‍👦", "👩🏽‍💻", "🇩🇪", "❤️", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"];
const marks = ["e\u0301", "e\u0323\u0301", "e\u0301\u0323", "q\u0307\u0323", "\u1e9b\u0323", "ﬁ", "①", "Å", "각", "\u1100\u1161\u11a8", "A\u030A", "\u0344", "İ", "ς", "Σ", "ſ", "'ſ", "K"];
const spaces = [" ", "  ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u200b", "     ", " \n ", "\u0085", "\ufeff"];
let special;
const digits = () => times(1 + below(8), () => pick([..."0123456789٣९𝟗Ⅷ½²"]));
const planes = [[0x20, 0x7f], [0xa0, 0x24f], [0x370, 0x5ff], [0x900, 0xdff], [0x1e00, 0x20cf], [0x2190, 0x2bff], [0x3040, 0x30ff], [0x4e00, 0x9fff], [0xac00, 0xd7a3], [0xf900, 0xfffd], [0x10000, 0x1034f], [0x10400, 0x104ff], [0x1d400, 0x1d7ff], [0x1e900, 0x1e95f], [0x1f300, 0x1faff], [0x20000, 0x2a6df], [0x2f800, 0x2fa1d], [0xe0001, 0xe01ef], [0xf0000, 0xf00ff], [0x100000, 0x1000ff]];
const character = () => {
  for (;;) {
    const [low, high] = pick(planes);
    const text = String.fromCodePoint(low + below(high - low));
    if (/\p{Assigned}/u.test(text)) return text;
  }
};
const parts = [
  () => pick(words), () => " " + pick(words), () => pick(words).toUpperCase(), () => pick(code), () => pick(emoji), () => pick(marks),
  () => times(1 + below(4), () => pick(spaces)), digits, character, () => times(1 + below(6), character),
  () => pick(special), () => pick(spaces) + pick(special) + pick(spaces), () => pick(words) + pick(special) + pick(words),
  () => pick(special).slice(1), () => pick(["a", "\n", " ", "ab", "1", "!", "é", "𝒳"]).repeat(1 + below(40)),
];
const surrogate = () => String.fromCharCode(0xd800 + below(0x800));

const read = async (file) => {
  const source = readFileSync(file, "utf8");
  const json = JSON.parse(source);
  state = Number(seed) >>> 0;
  special = json.added_tokens.length ? json.added_tokens.map((token) => token.content) : ["<none>"];
  const texts = ["", " ", "\n", "𝒳 y", "𝟗𝟗𝟗𝟗", "'S 'LL 'ſ", "a".repeat(5000), "xyz ".repeat(500), " ".repeat(700), "a\ud800b\udc00", "\udfff"];
  while (texts.length < Number(count)) {
    const text = times(1 + below(10), () => pick(parts)());
    texts.push(below(50) ? text : text.slice(0, 3) + surrogate() + text.slice(3));
  }
  const add_special_tokens = mode !== "plain";
  const js = mode === "rust" ? null : attempt(() => new Tokenizer(json, {}));
  const rust = rustLibrary?.Tokenizer.fromString(source);
  const rustIds = rust && (await rust.encodeBatch(texts, { addSpecialTokens: add_special_tokens })).map((encoding) => encoding.getIds());
  const rustTexts = rust && (await rust.decodeBatch(rustIds, false));
  return texts.map((text, row) => {
    const jsIds = js && attempt(() => js.encode(text, { add_special_tokens }).ids);
    const ids = rust ? rustIds[row] : jsIds;
    return {
      text: Buffer.from(text, "utf16le").toString("base64"),
      js: jsIds?.every(Number.isInteger) ? jsIds : null,
      rust: rust ? ids : null,
      rustText: rust ? rustTexts[row] : null,
      jsText: js && ids?.length ? attempt(() => js.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false })) : null,
    };
  });
};
const answers = [];
for (const file of files) answers.push(await read(file).catch((error) => ({ error: `${file}: ${error}` })));
process.stdout.write(JSON.stringify(answers));
