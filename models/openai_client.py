"""HTTP to an OpenAI-compatible server: what goes wrong there becomes one sentence. Knows no emails.

ModelError
├── ServerAwayError     cannot be reached, is overloaded or breaks; trying again later helps
├── TooLongError        the text does not fit into the model's context
└── RefusedError        the server does not take a parameter of the request; `about` holds its words

Transient answers are tried again with growing pauses, until the caller's deadline. Redirects are not followed, TLS
certificates are verified, and a key never gets into a message.
"""

import email.utils
import ipaddress
import json
import logging
import re
import time
import weakref
from collections.abc import Mapping
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.stop import stop_base

from briefbox.errors import ModelError, ServerAwayError
from briefbox.settings import Settings
from models.text import one_line, shorten

log = logging.getLogger(__name__)

MAX_RESPONSE_BYTES = 8_000_000
MAX_RETRY_AFTER_SECONDS = 30.0
CONNECT_SECONDS = 10.0
MAX_QUOTED_CHARS = 200
# A line of a request at least this long that comes back in an error is the email, and not for a log.
MIN_ECHO_CHARS = 20

_TRANSIENT = frozenset({408, 409, 425, 429})
# llama-cpp-python answers 500 to a response_format that it does not know, hosted APIs 403 to logprobs.
_REFUSALS = frozenset({400, 403, 422, 500, 501})
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|context (length|size|window)|maximum context|too many tokens|prompt is too long|must be <= \d+ tokens|inputs? tokens \+|max_new_tokens",
    re.IGNORECASE,
)
_PARAMETERS = re.compile(
    r"response_format|json_schema|json_object|structured.?output|guided|grammar|logprobs|temperature|max_completion_tokens|system role|role.{0,20}system",
    re.IGNORECASE,
)


class TooLongError(ModelError):
    """The text does not fit into the model's context."""


class RefusedError(ModelError):
    """The server does not take a parameter; `about` is what it said, in lower case."""

    def __init__(self, message: str, about: str) -> None:
        super().__init__(message)
        self.about = about


class _Again(Exception):
    """A transient failure. `after` is the pause in seconds that the server asked for."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Client:
    """One server. May be used by many threads at once."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is sent yet. Raises ModelError when the address or the key cannot be used."""
        self._timeout = settings.openai_timeout_seconds
        self._key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else ""
        url = _checked(settings.openai_url)
        self.host = url.host if url.port is None else f"{url.host}:{url.port}"
        if not re.fullmatch(r"[!-~]*", self._key):
            raise ModelError(
                "The key in BRIEFBOX_OPENAI_API_KEY_FILE holds characters that no HTTP header may have; expected one line of printable ASCII."
            )
        # Bodies are small, and an answer that unpacks to gigabytes cannot be sent where none may be packed.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            follow_redirects=False,
            # A proxy of the environment is for other machines: a server beside briefbox is asked directly.
            trust_env=not _is_loopback(url.host),
            limits=httpx.Limits(max_connections=settings.openai_parallel),
        )
        # An engine has no end of its own: its connections end with it.
        weakref.finalize(self, self._http.close)

    def models(self, deadline: float) -> list[Mapping[str, Any]]:
        """What the server lists, in its order; each has an `id`."""
        answer = self._ask("GET", "models", None, deadline)
        data = answer.get("data")
        if not isinstance(data, list):
            raise ModelError(f"{self._who} lists no models: expected an object with `data`; {_HINT_URL}")
        return [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str)]

    def chat(self, body: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """One chat completion. `deadline` is a time.monotonic().

        Raises TooLongError, RefusedError, ServerAwayError or ModelError.
        """
        return self._ask("POST", "chat/completions", body, deadline)

    # --- one request, several tries

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, deadline: float
    ) -> Mapping[str, Any]:
        tries = Retrying(
            retry=retry_if_exception_type(_Again), wait=_pause, stop=_Until(deadline), reraise=True
        )
        try:
            content = tries(self._once, method, path, body, deadline)
        except _Again as error:
            raise ServerAwayError(
                f"{self._who} could not be used ({error}); is it running? {_HINT_URL}"
            ) from error
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{self._who} answered with something that is no JSON; {_HINT_URL}") from error
        if not isinstance(answer, dict):
            raise ModelError(f"{self._who} answered with {type(answer).__name__}, expected an object.")
        return answer

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None, deadline: float) -> bytes:
        """The body of a good answer. Raises _Again for what may go well next time."""
        started = time.monotonic()
        seconds = min(self._timeout, deadline - started)
        if seconds <= 0:
            raise _Again("the time for this email is up")
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        try:
            with self._http.stream(method, path, json=body, timeout=timeout) as response:
                content = self._read(response, started + seconds)
        except httpx.TimeoutException as error:
            raise _Again(f"no answer within {seconds:.1f} s") from error
        except httpx.TransportError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ModelError(
                    f"The certificate of {self.host} does not verify ({self._quoted(str(error))}); name its authority's file in SSL_CERT_FILE."
                ) from error
            raise _Again(self._quoted(str(error)) or type(error).__name__) from error
        if response.status_code == 200:
            return content
        raise self._failure(response, content, body)

    def _read(self, response: httpx.Response, until: float) -> bytes:
        """The whole body, as long as it is neither too large nor trickles in too slowly."""
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > MAX_RESPONSE_BYTES:
                raise ModelError(f"{self._who} answered with more than {MAX_RESPONSE_BYTES} bytes.")
            if time.monotonic() > until:
                raise _Again("the answer took too long to arrive")
        return bytes(content)

    # --- what went wrong

    def _failure(self, response: httpx.Response, content: bytes, body: Mapping[str, Any] | None) -> Exception:
        status, said, about = response.status_code, *_said(content)
        quoted = self._quoted("" if _echoes(said, body) else said)
        words = f"{self._who} answered {status}{f' ({quoted})' if quoted else ''}"
        if body is not None and status in _REFUSALS | {413}:
            if _TOO_LONG.search(about):
                return TooLongError(
                    f"{words}: the email does not fit into its context; lower BRIEFBOX_MAX_EMAIL_TOKENS."
                )
            if _PARAMETERS.search(about):
                return RefusedError(f"{words}.", about.lower())
        if status in {401, 403}:
            return ModelError(f"{words}; put a key that it takes into BRIEFBOX_OPENAI_API_KEY_FILE.")
        if status in _TRANSIENT or (status >= 500 and status != 501):
            return _Again(words, _retry_after(response.headers.get("retry-after", "")))
        if 300 <= status < 400:
            return ModelError(
                f"{words}, a redirect, which is not followed; set BRIEFBOX_OPENAI_URL to the final address."
            )
        if status == 404:
            return self._missing(words, body)
        return ModelError(f"{words}; {_HINT_URL}")

    def _missing(self, words: str, body: Mapping[str, Any] | None) -> ModelError:
        """404: a wrong address, or a model that the server does not have."""
        if body is not None:
            try:
                content = self._once("GET", "models", None, time.monotonic() + CONNECT_SECONDS)
                names = [one_line(str(entry["id"])) for entry in json.loads(content)["data"]]
            except (ModelError, _Again, ValueError, KeyError, TypeError):
                names = []
            if names:
                return ModelError(
                    f"{words}: it has no model {body.get('model')}, only {shorten(', '.join(names), 300)}; set BRIEFBOX_OPENAI_MODEL."
                )
        return ModelError(f"{words}; {_HINT_URL}")

    @property
    def _who(self) -> str:
        return f"The model server at {self.host}"

    def _quoted(self, text: str) -> str:
        """A server's words, short, without the key in them."""
        text = text.replace(self._key, "***") if self._key else text
        return shorten(text, MAX_QUOTED_CHARS)


_HINT_URL = "check BRIEFBOX_OPENAI_URL, which ends in /v1 for most servers."


def _checked(address: str) -> httpx.URL:
    try:
        url = httpx.URL(address.rstrip("/") + "/")
    except httpx.InvalidURL as error:
        raise ModelError(
            f"BRIEFBOX_OPENAI_URL is no address ({error}); an example is http://127.0.0.1:8000/v1"
        ) from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ModelError(
            f"BRIEFBOX_OPENAI_URL={shorten(address, 80)} is no web address; an example is http://127.0.0.1:8000/v1"
        )
    if url.userinfo:
        raise ModelError(
            "BRIEFBOX_OPENAI_URL holds a password; put the key into BRIEFBOX_OPENAI_API_KEY_FILE instead."
        )
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _said(content: bytes) -> tuple[str, str]:
    """A server's error: its message, and all of it that tells what it is about."""
    try:
        answer = json.loads(content)
        error = answer.get("error", answer)
        if isinstance(error, dict):
            message = str(error.get("message") or error.get("detail") or answer.get("detail") or "")
            # Where the server names the parameter itself, its prose is not searched for others.
            names = " ".join(str(error.get(key) or "") for key in ("code", "type", "param"))
            return message, f"{names} {message}"
        return str(error), str(error)
    except (ValueError, AttributeError, RecursionError):
        text = content[:2000].decode("utf-8", "replace")
        return ("" if "<html" in text.lower() else text), text


def _echoes(said: str, body: Mapping[str, Any] | None) -> bool:
    """Whether an error repeats text of the request: some servers quote the whole of it."""
    texts = [str(message.get("content", "")) for message in (body or {}).get("messages", ())]
    lines = (line for text in texts for line in text.splitlines())
    return any(line in said for line in lines if len(line) >= MIN_ECHO_CHARS)


def _retry_after(header: str) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date."""
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


_backoff = wait_random_exponential(multiplier=0.5, max=10)


def _pause(state: RetryCallState) -> float:
    """The pause that the server asked for, bounded, or a random one that grows."""
    error = state.outcome.exception() if state.outcome else None
    after = error.after if isinstance(error, _Again) else None
    return _backoff(state) if after is None else min(after, MAX_RETRY_AFTER_SECONDS)


class _Until(stop_base):
    """No further try that would begin behind the deadline."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def __call__(self, retry_state: RetryCallState) -> bool:
        return time.monotonic() + retry_state.upcoming_sleep >= self.deadline
