// Writes src/Text/Tokenizers/categories.txt: the characters that the Rust library takes for punctuation, marks and what
// BERT's normalizer removes. Its tables are older than .NET's, and models were trained with them. A line as in properties.txt.
// Takes from normalization.txt, too, what the library does not know. Run make_normalization.py first.
import { readFileSync, writeFileSync } from "node:fs";
import library from "@anush008/tokenizers";

const part = (type, settings) => ({ type, ...settings });
const bert = (settings) => ({ normalizer: part("BertNormalizer", { clean_text: false, handle_chinese_chars: false, strip_accents: false, lowercase: false, ...settings }) });
const kinds = {
  // Between two letters: a piece of its own, or gone.
  Punctuation: [{ pre_tokenizer: part("Punctuation", { behavior: "Isolated" }) }, 3],
  Mark: [{ normalizer: part("StripAccents") }, 1],
  Accent: [bert({ strip_accents: true }), 1],
  Unclean: [bert({ clean_text: true }), 1],
};
const codes = Array.from({ length: 0x110000 }, (_, code) => code).filter((code) => code < 0xd800 || code > 0xdfff);
const model = part("WordLevel", { vocab: { "[UNK]": 0, a: 1, aa: 2 }, unk_token: "[UNK]" });

const lines = [];
for (const [name, [parts, pieces]] of Object.entries(kinds)) {
  const tokenizer = library.Tokenizer.fromString(JSON.stringify({ version: "1.0", added_tokens: [], model, ...parts }));
  const found = [];
  for (let at = 0; at < codes.length; at += 20000) {
    const some = codes.slice(at, at + 20000);
    const ids = (await tokenizer.encodeBatch(some.map((code) => `a${String.fromCodePoint(code)}a`), { addSpecialTokens: false })).map((encoding) => encoding.getIds());
    some.forEach((code, i) => {
      if (ids[i].length !== pieces || (pieces === 1 && ids[i][0] !== 2)) return;
      if (found.at(-1)?.[1] === code - 1) found.at(-1)[1] = code;
      else found.push([code, code]);
    });
  }
  lines.push(`${name};${found.map(([from, to]) => from.toString(16) + (to > from ? `-${to.toString(16)}` : "")).join(" ")}`);
}
const head = "# As the Rust library tokenizers has them; made by tests/oracles/make_categories.mjs\n";
writeFileSync(new URL("../../src/Text/Tokenizers/categories.txt", import.meta.url), head + lines.join("\n") + "\n");

// Classes that do not move a mark to its place between two others, and mappings that are not made.
const alphabet = Object.fromEntries(Array.from({ length: 0x200 }, (_, i) => [String.fromCharCode(i), i]));
const bytes = part("ByteLevel", { add_prefix_space: false, trim_offsets: true, use_regex: false });
const forms = (type) => library.Tokenizer.fromString(JSON.stringify({
  version: "1.0", added_tokens: [], normalizer: part(type), pre_tokenizer: bytes, decoder: bytes, model: part("BPE", { vocab: alphabet, merges: [] }),
}));
const [nfd, nfkd] = [forms("NFD"), forms("NFKD")];
const agrees = async (tokenizer, text, form) => {
  const ids = (await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds();
  return (await tokenizer.decode(ids, false)) === text.normalize(form);
};
const table = new URL("../../src/Text/Tokenizers/normalization.txt", import.meta.url);
const [first, ...entries] = readFileSync(table, "utf8").trimEnd().split("\n");
const kept = [];
for (const entry of entries) {
  const [hex, order, mapping] = entry.split(";");
  const character = String.fromCodePoint(parseInt(hex, 16));
  if ((!order || (await agrees(nfd, `a\u0345${character}\u0334`, "NFD"))) && (!mapping || (await agrees(nfkd, character, "NFKD")))) kept.push(entry);
}
const note = "; without what the Rust library does not know, by make_categories.mjs";
writeFileSync(table, `${first.replace(note, "")}${note}\n${kept.join("\n")}\n`);
