"""An OAuth2 provider on this machine: it grants tokens in every flow, takes a refresh token only once, and knows whose a token is."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

CLIENT_ID, CLIENT_SECRET = "desk-app", "s3cret-of-the-app"


class OAuthServer:
    """`url` + /token, /device, /authorize, /introspect. `says` scripts answers that come before the ordinary ones."""

    def __init__(
        self, *, username: str = "desk", expires_in: int = 3600, secret: str = CLIENT_SECRET
    ) -> None:
        self.username, self.expires_in, self.secret = username, expires_in, secret
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.refresh_tokens: set[str] = set()  # those not spent yet
        self.access_tokens: dict[str, str] = {}  # token -> user name, of those that count
        self.says: list[tuple[int, Any]] = []
        self.pending = 0  # how often the device flow says "not yet"
        self.slow = 0.0
        self._number = 0
        self._codes: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {key: " ".join(values) for key, values in parse_qs(body).items()}
                code, said = provider._answer(urlsplit(self.path).path, form, self.headers["Authorization"])
                text = said.encode() if isinstance(said, str) else json.dumps(said).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self) -> None:
                document = provider._document(urlsplit(self.path).path)
                if document is not None:
                    text = json.dumps(document).encode()
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)
                    return
                query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
                self.send_response(302)
                self.send_header("Location", provider._authorize(query))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "OAuthServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def grant(self) -> dict[str, Any]:
        """Fresh tokens, as the token end-point gives them."""
        with self._lock:
            self._number += 1
            access, refresh = f"access-token-{self._number}-ZZ", f"refresh-token-{self._number}-ZZ"
            self.refresh_tokens.add(refresh)
            self.access_tokens[access] = self.username
        return {
            "access_token": access,
            "refresh_token": refresh,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
        }

    def revoke_all(self) -> None:
        """Somebody takes back what they allowed."""
        self.refresh_tokens.clear()
        self.access_tokens.clear()

    def num_refreshes(self) -> int:
        """How often a refresh token was used, well or not."""
        return sum(form.get("grant_type") == "refresh_token" for _, form in self.requests)

    def _answer(self, path: str, form: dict[str, str], basic: str | None) -> tuple[int, Any]:
        if path == "/introspect":
            user = self.access_tokens.get(form.get("token", ""))
            return (200, {"active": True, "username": user}) if user else (200, {"active": False})
        self.requests.append((path, form | ({"basic": basic} if basic else {})))
        if self.slow:
            time.sleep(self.slow)
        if self.says:
            return self.says.pop(0)
        if path == "/device":
            return 200, {
                "device_code": "device-code-ZZ",
                "user_code": "WDJB-MJHT",
                "verification_uri": "https://login.example/device",
                "interval": 1,
                "expires_in": 60,
            }
        if path != "/token":
            return 404, {"error": "not_found"}
        return self._token(form)

    def _token(self, form: dict[str, str]) -> tuple[int, Any]:
        kind = form.get("grant_type", "")
        if kind == "refresh_token":
            if form.get("refresh_token") not in self.refresh_tokens:
                return 400, {
                    "error": "invalid_grant",
                    "error_description": "Token has been expired or revoked.",
                }
            self.refresh_tokens.discard(form["refresh_token"])
            return 200, self.grant()
        if kind.endswith(":device_code"):
            if self.pending > 0:
                self.pending -= 1
                return 400, {"error": "authorization_pending"}
            return 200, self.grant()
        if kind == "authorization_code":
            asked = self._codes.pop(form.get("code", ""), {})
            proof = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=")
            if asked.get("code_challenge") != proof.decode() or asked["redirect_uri"] != form["redirect_uri"]:
                return 400, {"error": "invalid_grant", "error_description": "PKCE does not match."}
            return 200, self.grant()
        if kind == "client_credentials":
            granted = self.grant()
            del granted["refresh_token"]
            return 200, granted
        return 400, {"error": "unsupported_grant_type"}

    def _document(self, path: str) -> Any:
        """What is read there without a form; None for what is none."""
        return None

    def _authorize(self, query: dict[str, str]) -> str:
        self.requests.append(("/authorize", query))
        code = f"code-{len(self.requests)}-ZZ"
        self._codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"
