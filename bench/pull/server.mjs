// A model of N files in memory, served as the Hugging Face Hub serves one. Prints its port.
import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:http";

const [count, mebibytes] = process.argv.slice(2).map(Number);
const commit = "0123456789abcdef0123456789abcdef01234567";
const hash = (algorithm, ...parts) => parts.reduce((h, part) => h.update(part), createHash(algorithm)).digest("hex");
const files = new Map();
const add = (path, bytes, large) => files.set(path, { path, bytes, large, sha256: hash("sha256", bytes), oid: hash("sha1", `blob ${bytes.length}\0`, bytes) });
const name = (i) => `model-${String(i + 1).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.safetensors`;
const seed = randomBytes(1 << 20);
for (let i = 0; i < count; i++) {
  const bytes = Buffer.alloc(mebibytes << 20);
  for (let at = 0; at < bytes.length; at += seed.length) bytes.writeUInt32LE(i * 65536 + (at >> 20), (seed.copy(bytes, at), at));
  add(name(i), bytes, true);
}
add("config.json", Buffer.from("{}"), false);
add("tokenizer.json", Buffer.from("{}"), false);
add("model.safetensors.index.json", Buffer.from(JSON.stringify({ weight_map: Object.fromEntries(Array.from({ length: count }, (_, i) => [`w${i}`, name(i)])) })), false);

const json = (response, value) => response.end(JSON.stringify(value));
createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://127.0.0.1");
  if (pathname.includes("/revision/")) return json(response, { sha: commit });
  if (pathname.includes("/tree/"))
    return json(response, [...files.values()].map((f) => ({ type: "file", path: f.path, size: f.bytes.length, oid: f.oid, ...(f.large && { lfs: { oid: f.sha256, size: f.bytes.length } }) })));
  const file = files.get(pathname.split("/").pop());
  if (!file) return response.writeHead(404).end();
  const range = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? "");
  const [from, to] = range ? [Number(range[1]), range[2] ? Number(range[2]) : file.bytes.length - 1] : [0, file.bytes.length - 1];
  response.writeHead(range ? 206 : 200, {
    "Content-Length": to - from + 1,
    ETag: `"${file.large ? file.sha256 : file.oid}"`,
    ...(range && { "Content-Range": `bytes ${from}-${to}/${file.bytes.length}` }),
  });
  response.end(file.bytes.subarray(from, to + 1));
}).listen(0, "127.0.0.1", function () {
  console.log(this.address().port);
});
