// Writes tests/Text.Tests/Golden/tokenizers: a small Unigram and a small WordPiece tokenizer, trained by the Rust
// library on this project's own documents, and a compiled map of characters as SentencePiece's models carry it.
import { mkdirSync, readFileSync, writeFileSync, rmSync } from "node:fs";
import library from "@anush008/tokenizers";

const { Tokenizer, Unigram, WordPiece } = library;
const root = new URL("../../", import.meta.url).pathname;
const golden = `${root}tests/Text.Tests/Golden/tokenizers/`;
mkdirSync(golden, { recursive: true });

const foreign = "straße naïve Ångström мир Привет 你好世界 こんにちは 안녕하세요 مرحبا שלום नमस्ते ไทย 1 12 123 ½ ² don't it's they're ".repeat(20);
const text = ["README.md", "CONTRIBUTING.md", "docs/architecture.md"].map((file) => readFileSync(root + file, "utf8")).join("\n") + foreign;
const corpus = `${golden}corpus.txt`;

const train = (model, pieces, lower) => {
  writeFileSync(corpus, lower ? text.toLowerCase() : text);
  const tokenizer = new Tokenizer(model);
  tokenizer.setPreTokenizer(pieces);
  tokenizer.train([corpus]);
  tokenizer.save(`${golden}trained.json`, false);
  const json = JSON.parse(readFileSync(`${golden}trained.json`, "utf8"));
  rmSync(corpus);
  rmSync(`${golden}trained.json`);
  return json;
};
const added = (content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true });

const unigram = train(Unigram.empty(), library.metaspacePreTokenizer(), false);
const specials = ["<unk>", "<s>", "</s>"];
unigram.model.vocab = [...specials.map((token) => [token, 0]), ...unigram.model.vocab.slice(0, 900)];
unigram.model.unk_id = 0;
unigram.added_tokens = specials.map(added);

const words = train(WordPiece.empty(), library.bertPreTokenizer(), true);
const names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
words.model.vocab = Object.fromEntries([...names, ...Object.keys(words.model.vocab)].map((token, id) => [token, id]));
words.model.unk_token = "[UNK]";
words.added_tokens = names.map(added);
words.normalizer = { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true };
words.post_processor = { type: "BertProcessing", sep: ["[SEP]", 3], cls: ["[CLS]", 2] };
words.decoder = { type: "WordPiece", prefix: "##", cleanup: true };

// A double array: a child lies at its parent's base XOR its byte; a word's end is byte 0, whose unit is its value.
const charactersMap = (entries) => {
  const bytes = (text) => [...Buffer.from(text, "utf8")];
  const root = { children: new Map() };
  let replacements = Buffer.alloc(0);
  for (const [from, to] of entries) {
    let node = root;
    for (const byte of bytes(from)) {
      if (!node.children.has(byte)) node.children.set(byte, { children: new Map() });
      node = node.children.get(byte);
    }
    node.value = replacements.length;
    replacements = Buffer.concat([replacements, Buffer.from(to, "utf8"), Buffer.from([0])]);
  }
  const units = new Array(1 << 16).fill(null);
  units[0] = 0;
  const place = (node, at, label) => {
    const labels = [...node.children.keys(), ...(node.value === undefined ? [] : [0])];
    let base = at & ~0xff;
    const fits = () => labels.every((byte) => units[base ^ byte] === null);
    for (base = 1; !fits(); base++);
    units[at] = ((at ^ base) << 10) | (node.value === undefined ? 0 : 1 << 8) | label;
    for (const byte of labels) units[base ^ byte] = 0;
    if (node.value !== undefined) units[base] = (node.value | 0x80000000) >>> 0;
    for (const [byte, child] of node.children) place(child, base ^ byte, byte);
  };
  place(root, 0, 0);
  const used = units.slice(0, (units.findLastIndex((unit) => unit !== null) | 0xff) + 1);
  const array = Buffer.alloc(4 + 4 * used.length);
  array.writeUInt32LE(4 * used.length);
  used.forEach((unit, i) => array.writeUInt32LE((unit ?? 0) >>> 0, 4 + 4 * i));
  return Buffer.concat([array, replacements]).toString("base64");
};
const precompiled_charsmap = charactersMap([
  ["\t", " "], ["\n", " "], ["\u00a0", " "], ["\u3000", " "], ["\u2003", " "], ["\u200b", ""], ["\ufeff", ""], ["ﬁ", "fi"], ["①", "1"], ["½", "1⁄2"],
  ["²", "2"], ["Å", "Å"], ["e\u0301", "é"], ["q", "Q"], ["İ", "I"], ["Ⅷ", "VIII"], ["𝒳", "X"], ["1️⃣", "1"], ["❤️", "♥"], ["각", "각!"],
]);
writeFileSync(`${golden}unigram.json`, JSON.stringify(unigram) + "\n");
writeFileSync(`${golden}wordpiece.json`, JSON.stringify(words) + "\n");
writeFileSync(`${golden}precompiled.json`, JSON.stringify({ type: "Precompiled", precompiled_charsmap }) + "\n");
