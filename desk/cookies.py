"""The session's cookie, where a sign-in leads to, and where a request comes from."""

from urllib.parse import quote, urlsplit

from fastapi import Request
from fastapi.responses import Response

from briefbox.tables import User
from desk.context import Desk


def cookie_name(desk: Desk) -> str:
    """`__Host-` makes browsers refuse the cookie from anything but this very host; it needs https."""
    return "__Host-briefbox" if desk.https else "briefbox"


def session_token(desk: Desk, request: Request) -> str:
    """The token that the browser sent, or nothing."""
    return request.cookies.get(cookie_name(desk), "")


def with_cookie(desk: Desk, response: Response, token: str) -> Response:
    """The answer, with the token for the browser to keep."""
    response.set_cookie(
        cookie_name(desk),
        token,
        max_age=int(desk.settings.session_hours * 3600),
        path="/",
        secure=desk.https,
        httponly=True,
        samesite="lax",
    )
    return response


def without_cookie(desk: Desk, response: Response) -> Response:
    """The answer, with which the browser forgets the token."""
    response.delete_cookie(cookie_name(desk), path="/", secure=desk.https, httponly=True, samesite="lax")
    return response


def local(target: str) -> str:
    """A path on this desk, whatever a link asks for: nobody is sent to another site after signing in."""
    parts = urlsplit(target) if target.isprintable() and "\\" not in target else None
    if parts is None or parts.scheme or parts.netloc or not target.startswith("/") or target.startswith("//"):
        return "/"
    return quote(parts.path, safe="/%") + (f"?{parts.query}" if parts.query else "")


def network_address(request: Request) -> str:
    """Where the request comes from; behind a proxy, as uvicorn takes it from the proxy's header."""
    return request.client.host if request.client else "unknown"


def browser_name(request: Request) -> str:
    """The browser as it calls itself."""
    return "".join(c for c in request.headers.get("user-agent", "") if c.isprintable())[:300]


def needs_second_factor(setting: str, user: User) -> bool:
    """Whether somebody has to set a second factor up before anything else."""
    asked = setting == "all" or (setting == "admins" and user.role == "admin")
    return asked and not user.totp_encrypted
