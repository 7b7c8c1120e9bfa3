"""Listens to briefbox's webhook and does something with each brief. Python 3.11 or newer, nothing else.

    export BRIEFBOX_ADDRESS=https://desk.example.org
    export BRIEFBOX_TOKEN=bbx_...            # a token with the scope "read": Account, API tokens
    export BRIEFBOX_WEBHOOK_SECRET=whsec_... # shown when the webhook was added: Admin, Webhooks, event brief.made
    python listen.py 8099

As it stands it writes one line of JSON for each brief. zammad.py and chatwoot.py beside it put each brief onto the
ticket that came of the same mail.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

Handle = Callable[[dict[str, Any], dict[str, Any]], None]

# A message that is older than this may be somebody's who recorded it.
MAX_AGE = 300
# Message ids that are remembered: briefbox sends one again when it heard no answer.
REMEMBERED = 10_000
MAX_BODY = 1_000_000


def ask(method: str, url: str, headers: dict[str, str], body: Any = None) -> Any:
    """One request for JSON. Raises HTTPError (which is an OSError) and other OSErrors."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json", **headers}, method=method)  # noqa: S310
    with urlopen(request, timeout=20) as answer:  # noqa: S310 - the addresses are your own settings
        text = answer.read()
    return json.loads(text) if text else None


def briefbox(path: str) -> Any:
    """Something of briefbox's API, for example /briefs/12."""
    address, token = os.environ["BRIEFBOX_ADDRESS"].rstrip("/"), os.environ["BRIEFBOX_TOKEN"]
    return ask("GET", f"{address}/api/v1{path}", {"Authorization": f"Bearer {token}"})


def is_genuine(secret: str, headers: Any, body: bytes) -> bool:
    """Whether briefbox sent this, just now (the Standard Webhooks scheme)."""
    id_, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > MAX_AGE:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{id_}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # Two signatures come while a secret is being replaced.
    return any(
        hmac.compare_digest(expected, given) for given in headers.get("webhook-signature", "").split(" ")
    )


class Seen:
    """The message ids of late, so that a message that comes twice is handled once."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def add(self, id_: str) -> bool:
        """False when it was there already."""
        with self._lock:
            if id_ in self._ids:
                return False
            self._ids[id_] = None
            if len(self._ids) > REMEMBERED:
                self._ids.popitem(last=False)
            return True

    def forget(self, id_: str) -> None:
        """It was not handled after all."""
        with self._lock:
            self._ids.pop(id_, None)


def listen(port: int, handle: Handle) -> ThreadingHTTPServer:
    """A server that calls `handle(brief, email)` for each new brief. Run it with serve_forever()."""
    seen, secret = Seen(), os.environ["BRIEFBOX_WEBHOOK_SECRET"]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length) if length <= MAX_BODY else b""
            if not is_genuine(secret, self.headers, body):
                self.answer(401)
                return
            id_, message = self.headers["webhook-id"], json.loads(body)
            if message["type"] != "brief.made" or not seen.add(id_):
                self.answer(204)
                return
            try:
                data = message["data"]
                handle(briefbox(f"/briefs/{data['brief_id']}"), briefbox(f"/emails/{data['email_id']}"))
            except (OSError, KeyError, ValueError) as error:
                seen.forget(id_)
                reason = error.read()[:300] if isinstance(error, HTTPError) else error
                sys.stderr.write(f"{id_}: {error}: {reason!r}\n")
                self.answer(500)  # briefbox sends it again later
                return
            self.answer(204)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return ThreadingHTTPServer(("", port), Handler)


def words(brief: dict[str, Any]) -> str:
    """A brief as the text of a note."""
    doubt = f"\nNot sure of: {', '.join(brief['needs_human'])}" if brief["needs_human"] else ""
    labels = f"{brief['priority']['label']}, {brief['category']['label']}"
    link = f"{os.environ['BRIEFBOX_ADDRESS'].rstrip('/')}/conversations/{brief['conversation_id']}"
    return f"{brief['headline']}\n\n{brief['summary']}\n\n{labels}{doubt}\n{link}"


def write_line(brief: dict[str, Any], email: dict[str, Any]) -> None:
    """What this script does with a brief: put your own here."""
    line = {
        "message_id": email["message_id"],
        "from": email["sender"]["address"],
        "subject": email["subject"],
        "headline": brief["headline"],
        "priority": brief["priority"]["label"],
        "category": brief["category"]["label"],
    }
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    listen(int(sys.argv[1]), write_line).serve_forever()
