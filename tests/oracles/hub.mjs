// Hugging Face's own client against a hub of the tests: what it lists, and the cache that it makes.
import { fileDownloadInfo, listFiles, modelInfo, snapshotDownload } from "@huggingface/hub";
import { readFileSync } from "node:fs";

console.debug = () => {};
const { hubUrl, repo, cacheDir, accessToken } = JSON.parse(readFileSync(0, "utf8"));
const at = { hubUrl, repo, accessToken };
if (process.argv[2] === "list") {
  const { sha } = await modelInfo({ ...at, name: repo, revision: "main", additionalFields: ["sha"] });
  const files = [];
  for await (const file of listFiles({ ...at, revision: sha, recursive: true })) {
    const info = await fileDownloadInfo({ ...at, path: file.path, revision: sha });
    files.push({ path: file.path, size: file.size, blob: file.lfs?.oid ?? file.oid, downloadSize: info.size, etag: info.etag.replaceAll('"', "") });
  }
  console.log(JSON.stringify({ sha, files }));
} else {
  console.log(JSON.stringify({ folder: await snapshotDownload({ ...at, cacheDir }) }));
}
