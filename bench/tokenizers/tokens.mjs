// Encoding speed of the references on one core: @huggingface/tokenizers, and the Rust library where it is installed.
// usage: node bench/tokenizers/tokens.mjs MODEL_FOLDER TEXT_FILE   (after `npm ci` in tests/oracles)
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

process.env.TOKENIZERS_PARALLELISM = "false";
const from = createRequire(new URL("../../tests/oracles/package.json", import.meta.url));
const load = (name) => { try { return from(name); } catch { return null; } };
const [folder, file] = process.argv.slice(2);
const source = readFileSync(`${folder}/tokenizer.json`, "utf8");
const text = readFileSync(file, "utf8");
const bytes = Buffer.byteLength(text);

const documents = [];
for (let start = 0, end; start < text.length; start = end) {
  end = start + 4000 >= text.length ? text.length : text.indexOf("\n", start + 4000) + 1 || text.length;
  documents.push(text.slice(start, end));
}
const measure = async (name, make, encode) => {
  let start = performance.now();
  const tokenizer = make();
  console.log(`${name}: load ${(performance.now() - start).toFixed(0)} ms`);
  for (const pass of ["first", "second"]) {
    start = performance.now();
    let tokens = 0;
    for (const document of documents) tokens += await encode(tokenizer, document);
    console.log(`${name}: ${pass} ${(bytes / 1e3 / (performance.now() - start)).toFixed(1)} MB/s (${tokens} tokens)`);
  }
  start = performance.now();
  await encode(tokenizer, "a".repeat(100_000));
  console.log(`${name}: 'a' x 100000 ${(performance.now() - start).toFixed(0)} ms`);
};
const { Tokenizer } = load("@huggingface/tokenizers");
await measure("js", () => new Tokenizer(JSON.parse(source), {}), (tokenizer, document) => tokenizer.encode(document, { add_special_tokens: false }).ids.length);
const rust = load("@anush008/tokenizers");
if (rust) await measure("rust", () => rust.Tokenizer.fromString(source), async (tokenizer, document) => (await tokenizer.encode(document, null, { addSpecialTokens: false })).getLength());
