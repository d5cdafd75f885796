// Writes the data fixtures beside it with DuckDB (and Node for Brotli), from the rows in *.jsonl: the readers' answers are compared with those rows.
//   npm i @duckdb/node-api && node make_data.mjs
import { DuckDBInstance } from '@duckdb/node-api';
import { brotliCompressSync } from 'node:zlib';
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';

const db = await (await DuckDBInstance.create()).connect();
const sets = {
  chats: ["id BIGINT", "messages STRUCT(role VARCHAR, content VARCHAR)[]", "score DOUBLE", "kept BOOLEAN", "tags VARCHAR[]", "day DATE"],
  alpaca: ["instruction VARCHAR", "input VARCHAR", "output VARCHAR"],
  tokens: ["input_ids INTEGER[]", "labels BIGINT[]"],
};
for (const [name, columns] of Object.entries(sets)) {
  const types = columns.map(column => { const at = column.indexOf(' '); return `${column.slice(0, at)}: '${column.slice(at + 1)}'`; });
  await db.run(`CREATE TABLE ${name} AS SELECT * FROM read_json('${name}.jsonl', format='newline_delimited', columns={${types.join(', ')}})`);
  await db.run(`COPY ${name} TO '${name}.parquet' (FORMAT parquet, COMPRESSION ${name === 'alpaca' ? 'zstd' : name === 'tokens' ? 'gzip' : 'snappy'}, ROW_GROUP_SIZE 2048)`);
  await db.run(`COPY ${name} TO '${name}.json' (FORMAT json, ARRAY true)`);
}
await db.run(`COPY alpaca TO 'alpaca.csv' (FORMAT csv, HEADER)`);
await db.run(`COPY alpaca TO 'alpaca.tsv' (FORMAT csv, HEADER, DELIMITER '\t')`);
await db.run(`COPY alpaca TO 'alpaca.csv.zst' (FORMAT csv, HEADER, COMPRESSION zstd)`);
await db.run(`COPY chats TO 'chats.json.gz' (FORMAT json, COMPRESSION gzip)`);
writeFileSync('alpaca.jsonl.br', brotliCompressSync(readFileSync('alpaca.jsonl')));
unlinkSync('chats.json');   // large, and its compressed twin has the same rows
