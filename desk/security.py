"""What every answer carries and every request must pass, whatever the page.

Requests that change something must come from our own pages. Browsers say so themselves
(Sec-Fetch-Site, or Origin on plain http, where they leave Sec-Fetch-Site out); a request with neither
header comes from no browser, and no foreign page can have made it.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from desk.problem_json import is_api, problem_document

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
# A form holds two versions of a summary of 4,000 characters; each may take 12 bytes on the way.
MAX_BODY = 256_000

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "frame-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # Other hosts learn nothing. Not "no-referrer": with that browsers send "Origin: null" with our own
    # forms, and on plain http the Origin is all there is to tell them from foreign ones.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


_STATED = "content_security_policy"


def sandboxed(request: Request, response: Response, policy: str) -> Response:
    """Send this answer with a policy of its own, for what strangers wrote. Raises ValueError unless it is a sandbox.

    The last thing that a route does: whatever goes wrong before it is answered with the policy of all pages.
    """
    if not policy.startswith("sandbox;") or "default-src 'none'" not in policy:
        raise ValueError(f"{policy!r} is no sandbox that loads nothing.")
    setattr(request.state, _STATED, policy)
    return response


class Guard:
    """Pure ASGI, so that streams pass through untouched."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._headers = dict(HEADERS)
        if https:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        stated = scope.setdefault("state", {})

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                if _STATED in stated:
                    headers["Content-Security-Policy"] = stated[_STATED]
                    # Browsers show no sandboxed page that asks for a window group of its own.
                    del headers["Cross-Origin-Opener-Policy"]
                # Files of the program may be kept if they are asked for again each time; pages never.
                headers["Cache-Control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
            await send(message)

        headers = Headers(scope=scope)
        if scope["method"] not in SAFE_METHODS and not comes_from_us(headers):
            refusal = _refusal(
                scope["path"],
                403,
                "Refused: this request was made by another website, not by a page of this desk. If you use a proxy in front of the desk, it must pass the Host header on.",
            )
            await refusal(scope, receive, send_guarded)
        elif _stated_length(headers) > MAX_BODY:
            refusal = _refusal(scope["path"], 413, f"Refused: the request is larger than {MAX_BODY} bytes.")
            await refusal(scope, receive, send_guarded)
        else:
            await self._app(scope, _limited(receive), send_guarded)


def comes_from_us(headers: Headers) -> bool:
    """Whether no other website can have made this request."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def _refusal(path: str, status: int, sentence: str) -> Response:
    if is_api(path):
        return problem_document(path, status, sentence)
    return PlainTextResponse(sentence + "\n", status_code=status)


def _stated_length(headers: Headers) -> int:
    try:
        return int(headers.get("content-length", "0"))
    except ValueError:
        return MAX_BODY + 1


def _limited(receive: Receive) -> Receive:
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            raise HTTPException(413, f"The request is larger than {MAX_BODY} bytes.")
        return message

    return receive_limited
