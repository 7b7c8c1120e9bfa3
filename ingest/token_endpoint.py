"""The requests of OAuth2, by authlib over httpx: refresh, client credentials, authorization code with PKCE, device code.

RFC 6749 (OAuth 2.0), RFC 7636 (PKCE), RFC 8252 (native apps: a loopback address takes the answer), RFC 8628 (device code).
Nothing that is secret gets into an address, a log line, an error or a repr.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]
from authlib.common.security import generate_token  # type: ignore[import-untyped]
from authlib.oauth2.auth import ClientAuth  # type: ignore[import-untyped]
from authlib.oauth2.client import OAuth2Client  # type: ignore[import-untyped]

from briefbox.errors import MailboxError, MailboxLoginError
from briefbox.net import Network, VettedTransport
from ingest.tls import tls_context

TIMEOUT_SECONDS = 15.0
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# What a provider says when asking again later helps.
_PASSING = ("temporarily_unavailable", "server_error", "slow_down", "too_many_requests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An application registered with a provider, and the provider's end-points."""

    provider: str
    flow: str
    client_id: str
    token_url: str
    authorize_url: str = ""
    device_url: str = ""
    scope: str = ""
    login_as: str = ""
    client_secret: str = field(default="", repr=False)
    ca_file: Path | None = None
    networks: tuple[Network, ...] | None = None  # as in Account


@dataclass(frozen=True, slots=True)
class Grant:
    """Tokens as a provider gave them at `at` (seconds since 1970), the access token for `expires_in` seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    expires_in: float = 0.0
    at: float = field(default_factory=time.time)


class RefusedError(Exception):
    """The provider said no: `code` is OAuth's word for it, the text is its own words."""

    def __init__(self, code: str, description: str = "") -> None:
        """`description` may be anything that a server sends."""
        self.code = code
        self.passing = code in _PASSING
        said = _plain(description)
        super().__init__(f"{code}: {said}".rstrip(". ") if said else code)


def refresh(client: Client, refresh_token: str) -> Grant:
    """Tokens for a refresh token (RFC 6749, 6). Raises RefusedError, MailboxError."""
    with _session(client, refresh_token) as session:
        return _grant(session.refresh_token(client.token_url, refresh_token=refresh_token), refresh_token)


def client_credentials(client: Client) -> Grant:
    """A token for the application itself (RFC 6749, 4.4). Raises RefusedError, MailboxError."""
    with _session(client) as session:
        return _grant(session.fetch_token(client.token_url, grant_type="client_credentials"))


# --- device code (RFC 8628)


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person enters where; `device_code` is the secret half."""

    user_code: str
    address: str
    device_code: str = field(repr=False)
    interval: float = 5.0
    expires_in: float = 900.0


def ask_for_device_code(client: Client) -> DeviceCode:
    """Begin a sign-in on another device. Raises RefusedError, MailboxError."""
    with _session(client) as session:
        who = session.client_auth(session.token_endpoint_auth_method)
        said = _json(session.session.post(client.device_url, data={"scope": client.scope}, auth=who))
    try:
        return DeviceCode(
            user_code=_plain(said["user_code"]),
            address=_plain(said.get("verification_uri") or said["verification_url"]),
            device_code=str(said["device_code"]),
            interval=_number(said.get("interval"), 5.0),
            expires_in=_number(said.get("expires_in"), 900.0),
        )
    except KeyError as error:
        raise MailboxError(
            f"{client.device_url} gave no device code ({error} is missing); expected an answer as in RFC 8628, check --device-url."
        ) from error


def ask_once(client: Client, code: DeviceCode) -> Grant | None:
    """Whether the person has signed in; None while not. Raises RefusedError, MailboxError."""
    try:
        with _session(client, code.device_code) as session:
            return _grant(
                session.fetch_token(client.token_url, grant_type=DEVICE_GRANT, device_code=code.device_code)
            )
    except RefusedError as error:
        if error.code in ("authorization_pending", "slow_down"):
            return None
        raise


def wait_for_device(
    client: Client, code: DeviceCode, *, sleep: Callable[[float], object] = time.sleep
) -> Grant:
    """Ask until the person has signed in (RFC 8628, 3.5). Raises RefusedError, MailboxLoginError."""
    interval, left = code.interval, code.expires_in
    while left > 0:
        sleep(interval)
        left -= interval
        try:
            with _session(client, code.device_code) as session:
                return _grant(
                    session.fetch_token(
                        client.token_url, grant_type=DEVICE_GRANT, device_code=code.device_code
                    )
                )
        except RefusedError as error:
            if error.code not in ("authorization_pending", "slow_down"):
                raise
            interval += 5 * (error.code == "slow_down")
        except MailboxError:
            interval *= 2  # RFC 8628, 3.5: no answer is a reason to ask more rarely
    raise MailboxLoginError(
        f"Nobody entered the code {code.user_code} at {code.address} within {code.expires_in / 60:.0f} minutes; run the command again."
    )


# --- authorization code with PKCE, answered to this machine (RFC 8252)


class CodeSignIn:
    """A sign-in in a browser, whose answer comes to a port of this machine. Use as a context manager."""

    def __init__(self, client: Client, *, port: int = 0) -> None:
        """Port 0 takes any free one. Raises MailboxError when it is taken."""
        self._client = client
        self._answers: list[str] = []
        self._state, self._verifier = generate_token(32), generate_token(64)
        try:
            self._server = HTTPServer(("127.0.0.1", port), _handler(self._state, self._answers))
        except OSError as error:
            raise MailboxError(
                f"Port {port} of this machine cannot be listened on ({error.strerror}); choose another with --listen-port PORT."
            ) from error
        self._server.timeout = 0.5
        self.port: int = self._server.server_address[1]
        # Microsoft knows the name only, others the number as well; RFC 8252 prefers the number.
        host = "localhost" if client.provider == "microsoft" else "127.0.0.1"
        self._redirect = f"http://{host}:{self.port}/"
        with _session(client) as session:
            extra = {"login_hint": client.login_as or None}
            if client.provider == "google":
                # Without both Google gives a refresh token at the first sign-in only.
                extra |= {"access_type": "offline", "prompt": "consent"}
            self.address, _ = session.create_authorization_url(
                client.authorize_url,
                state=self._state,
                code_verifier=self._verifier,
                redirect_uri=self._redirect,
                **extra,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self, seconds: float) -> Grant:
        """The tokens, once the person has signed in. Raises RefusedError, MailboxLoginError, MailboxError."""
        end = time.monotonic() + seconds
        while not self._answers:
            if time.monotonic() > end:
                raise MailboxLoginError(
                    f"Nobody signed in within {seconds / 60:.0f} minutes; run the command again, and open the address in a browser that reaches port {self.port} of this machine."
                )
            self._server.handle_request()
        answer = parse_qs(urlsplit(self._answers[0]).query)
        if "error" in answer:
            raise RefusedError(answer["error"][0], answer.get("error_description", [""])[0])
        with _session(self._client, self._verifier, answer["code"][0]) as session:
            return _grant(
                session.fetch_token(
                    self._client.token_url,
                    grant_type="authorization_code",
                    code=answer["code"][0],
                    code_verifier=self._verifier,
                    redirect_uri=self._redirect,
                )
            )


def _handler(state: str, answers: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Takes the one answer that carries our state; anything else is turned away."""

        timeout = 5

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            ours = query.get("state") == [state] and ("code" in query or "error" in query)
            if ours and not answers:
                answers.append(self.path)
            text = b"You can close this page and go back to the terminal." if ours else b"Not this address."
            self.send_response(200 if ours else 400)
            for name, value in (
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(text))),
                ("Cache-Control", "no-store"),
                ("Referrer-Policy", "no-referrer"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing: the address holds the code."""

    return Handler


# --- requests


class _ClientAuth(httpx.Auth, ClientAuth):  # type: ignore[misc]
    """authlib's ways of naming the application, for httpx."""

    requires_request_body = True

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        headers = dict(request.headers)
        headers.pop("content-length", None)
        url, headers, body = self.prepare(request.method, str(request.url), headers, request.content)
        # The extensions hold the time limits.
        yield httpx.Request(request.method, url, headers=headers, content=body, extensions=request.extensions)


class _Session(OAuth2Client):  # type: ignore[misc]
    client_auth_class = _ClientAuth

    def parse_response_token(self, resp: httpx.Response) -> dict[str, Any]:
        said = _json(resp)
        if not said.get("access_token"):
            raise ValueError("it holds no access token")
        self.token = said
        return said


@contextmanager
def _session(client: Client, *secrets: str) -> Iterator[Any]:
    """authlib's client with a connection of its own; what goes wrong is a RefusedError or a MailboxError."""
    where = urlsplit(client.token_url).hostname
    # Redirects are not followed: a secret goes to the address that an admin gave, and nowhere else.
    verify = tls_context(client.ca_file, beside_system=True)
    http = httpx.Client(
        timeout=TIMEOUT_SECONDS,
        verify=verify,
        follow_redirects=False,
        transport=None if client.networks is None else VettedTransport(client.networks, verify=verify),
    )
    method = "none"
    if client.client_secret:
        method = "client_secret_basic" if client.provider == "custom" else "client_secret_post"
    with http:
        session = _Session(
            http,
            client_id=client.client_id,
            client_secret=client.client_secret,
            token_endpoint_auth_method=method,
            scope=client.scope,
            code_challenge_method="S256",
        )
        try:
            yield session
        except RefusedError as error:
            raise RefusedError(
                error.code, _without(str(error), client, *secrets).removeprefix(f"{error.code}: ")
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MailboxError(
                f"{where}, which gives tokens for the mailbox, cannot be asked now ({_without(str(error), client, *secrets) or type(error).__name__}); it is tried again later."
            ) from None
        except (AuthlibBaseError, ValueError) as error:
            raise MailboxError(
                f"{where} gave an answer that is no token ({_without(str(error), client, *secrets)}); check --token-url, it is tried again later."
            ) from None


def _json(answer: httpx.Response) -> dict[str, Any]:
    """The answer's JSON object; RFC 6749, 5.2: an error is one, too. Raises RefusedError, ValueError."""
    try:
        said = answer.json()
    except ValueError:
        said = None
    if answer.status_code == 429 or answer.status_code >= 500:
        raise RefusedError("server_error", f"HTTP {answer.status_code}")
    if not isinstance(said, dict):
        raise ValueError(f"HTTP {answer.status_code} without a JSON object")
    if "error" in said:
        raise RefusedError(_plain(said["error"]), str(said.get("error_description", "")))
    if answer.status_code != 200:
        raise ValueError(f"HTTP {answer.status_code}")
    return said


def _grant(token: Mapping[str, Any], old_refresh_token: str = "") -> Grant:
    return Grant(
        access_token=str(token["access_token"]),
        refresh_token=str(token.get("refresh_token") or old_refresh_token),
        expires_in=_number(token.get("expires_in"), 0.0),
    )


def _number(value: object, default: float) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return default
    return number if 0 < number < 10**9 else default


def _plain(said: object) -> str:
    """A provider's words as one short line that does nothing to a terminal."""
    return " ".join("".join(ch if ch.isprintable() else " " for ch in str(said)).split())[:300]


def _without(text: str, client: Client, *secrets: str) -> str:
    """A provider may repeat in its answer what it was sent."""
    for secret in (client.client_secret, *secrets):
        if len(secret) > 3:
            text = text.replace(secret, "***")
    return text
