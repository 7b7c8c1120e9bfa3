"""A scripted OpenAI-compatible server on loopback: says what a test tells it to, and remembers what it was asked."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, ClassVar

BRIEF = {
    "priority": "high",
    "category": "Delivery",
    "headline": "Late parcel",
    "summary": "Parcel 4711 is late.",
}


@dataclass(frozen=True)
class Reply:
    """One answer. A `body` of bytes is sent as it is; `drip` seconds pass between its pieces."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    hang_up: bool = False


@dataclass(frozen=True)
class Asked:
    """One request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def user(self) -> str:
        """The text of the last message."""
        text: str = self.body["messages"][-1]["content"]
        return text


Script = Callable[[Asked], Reply] | Sequence[Reply]


def completion(
    content: str | None,
    *,
    logprobs: Any = None,
    finish_reason: str = "stop",
    usage: Mapping[str, Any] | None = None,
    **more: Any,
) -> Reply:
    """A chat completion with one choice."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": finish_reason,
        "logprobs": logprobs,
    }
    counts = usage or {"prompt_tokens": 100, "completion_tokens": 20}
    return Reply({"id": "c", "object": "chat.completion", "choices": [choice], "usage": counts, **more})


def brief(**changes: str) -> Reply:
    """A completion with a good brief."""
    return completion(json.dumps(BRIEF | changes, ensure_ascii=False))


def error(status: int, message: str, **more: Any) -> Reply:
    """An error in OpenAI's form."""
    return Reply({"error": {"message": message, **more}}, status)


def tokens(*entries: str | tuple[str, float, Mapping[str, float]]) -> dict[str, Any]:
    """Logprobs of an answer: plain texts are certain; others are (text, its probability, other probabilities)."""
    content = []
    for entry in entries:
        text, probability, others = (entry, 1.0, {}) if isinstance(entry, str) else entry
        top = {text: probability, **others}
        content.append(
            {
                "token": text,
                "logprob": math.log(probability),
                "bytes": list(text.encode()),
                "top_logprobs": [
                    {"token": t, "logprob": math.log(p), "bytes": list(t.encode())} for t, p in top.items()
                ],
            }
        )
    return {"content": content}


class OpenAIServer:
    """Serves `models` at /v1/models, and the script at /v1/chat/completions: replies in turn, the last one for ever."""

    def __init__(self, script: Script = (), *, models: Any = ("tiny",)) -> None:
        self.script = script or (brief(),)
        self.models = models
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version: ClassVar[str] = "scripted"

            def do_GET(self) -> None:
                server._handle(self)

            def do_POST(self) -> None:
                server._handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "OpenAIServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(5)
        self._server.server_close()

    @property
    def chats(self) -> list[Asked]:
        """The chat completions that were asked for."""
        return [asked for asked in self.asked if asked.path.endswith("/chat/completions")]

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length") or 0)
        content = handler.rfile.read(length)
        asked = Asked(
            handler.command,
            handler.path,
            {name.lower(): value for name, value in handler.headers.items()},
            json.loads(content) if content else None,
        )
        with self._lock:
            self.asked.append(asked)
            number = len(self.chats) - 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._send(handler, self._reply(asked, number))
        except OSError:
            pass  # the client has gone
        finally:
            with self._lock:
                self._at_once -= 1

    def _reply(self, asked: Asked, number: int) -> Reply:
        if asked.path == "/v1/models":
            if isinstance(self.models, Reply):
                return self.models
            data = [entry if isinstance(entry, dict) else {"id": entry} for entry in self.models]
            return Reply({"object": "list", "data": data})
        if asked.path != "/v1/chat/completions":
            return error(404, "no such page")
        if callable(self.script):
            return self.script(asked)
        return self.script[min(number, len(self.script) - 1)]

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        time.sleep(reply.delay)
        if reply.hang_up:
            handler.close_connection = True
            handler.connection.close()
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        size = len(body) if not reply.drip else max(len(body) // 50, 1)
        for at in range(0, len(body), size):
            handler.wfile.write(body[at : at + size])
            time.sleep(reply.drip)
