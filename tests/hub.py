"""Model folders and a model hub for tests: a few kilobytes, on this machine, no weights that mean anything."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 100,
}


def safetensors(*shapes: tuple[int, ...], dtype: str = "BF16", size: int = 2) -> bytes:
    """A file in the safetensors format with zeros in these shapes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for number, shape in enumerate(shapes):
        num_bytes = size
        for width in shape:
            num_bytes *= width
        header[f"t{number}"] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + num_bytes]}
        at += num_bytes
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def write_model(folder: Path, **config: Any) -> Path:
    """A folder that looks like a model of 4,200 parameters; it has no tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "model.safetensors").write_bytes(safetensors((100, 32), (1000,)))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# A model\n")
    return folder


class Hub:
    """What a hub answers with: the files of one commit of owner/name. `asked` are the paths it was asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        self.url = ""
        self.status = 0  # another answer to everything, with `error` as X-Error-Code
        self.error = ""
        self.lies: dict[str, bytes] = {}  # other bytes than the listing tells of

    def tree(self) -> list[dict[str, Any]]:
        """The listing, in which safetensors are large files with a sha256."""
        entries = []
        for path, content in self.files.items():
            entry: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": sha1(content, usedforsecurity=False).hexdigest(),
            }
            if path.endswith(".safetensors"):
                sum_ = sha256(content).hexdigest()
                entry["lfs"] = {"oid": sum_, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return [entry for entry in entries if "/" not in entry["path"]]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """The hub over HTTP on the loopback address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            if hub.status:
                self.reply(hub.status, b"", {"X-Error-Code": hub.error}, body=body)
            elif path.startswith(f"/api/models/owner/name/tree/{REVISION}"):
                self.reply(
                    200, json.dumps(hub.tree()).encode(), {"Content-Type": "application/json"}, body=body
                )
            elif path.startswith(f"/owner/name/resolve/{REVISION}/"):
                name = path.rpartition(f"{REVISION}/")[2]
                content = hub.lies.get(name, hub.files[name])
                etag = sha256(hub.files[name]).hexdigest()
                self.reply(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION}, body=body)
            else:
                self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, body=body)

        def reply(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
