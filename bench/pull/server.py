"""A model of N files of so many MiB in a folder in memory, served as the Hugging Face Hub serves one: sent by the kernel, a thread a connection. Prints its port."""

import hashlib
import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder, count, mebibytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
commit = "0123456789abcdef0123456789abcdef01234567"
files = {}


def add(name, parts, large):
    size, sha256 = 0, hashlib.sha256()
    with open(os.path.join(folder, name), "wb") as file:
        for part in parts:
            file.write(part)
            sha256.update(part)
            size += len(part)
    with open(os.path.join(folder, name), "rb") as file:
        oid = sha256.hexdigest() if large else hashlib.sha1(b"blob %d\0" % size + file.read()).hexdigest()
    files[name] = (size, oid, large)


def parts(index):
    seed = os.urandom(1 << 20)
    for at in range(mebibytes):
        yield (index * 65536 + at).to_bytes(4, "little") + seed[4:]


names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
for i, name in enumerate(names):
    add(name, parts(i), True)
add("config.json", [b"{}"], False)
add("tokenizer.json", [b"{}"], False)
add("model.safetensors.index.json", [json.dumps({"weight_map": {f"w{i}": name for i, name in enumerate(names)}}).encode()], False)


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.partition("?")[0]
        if "/revision/" in path:
            return self.json({"sha": commit})
        if "/tree/" in path:
            return self.json([{"type": "file", "path": name, "size": size, "oid": oid, **({"lfs": {"oid": oid, "size": size}} if large else {})} for name, (size, oid, large) in files.items()])
        name = path.rpartition("/")[2]
        if name not in files:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        size, oid, _ = files[name]
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or size - 1)) if asked else (0, size - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("ETag", f'"{oid}"')
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        self.wfile.flush()
        with open(os.path.join(folder, name), "rb") as file:
            try:
                self.connection.sendfile(file, first, last + 1 - first)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    def json(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer.request_queue_size = 64
server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
print(server.server_port, flush=True)
server.serve_forever()
