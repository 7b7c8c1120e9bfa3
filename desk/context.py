"""What every request needs: the database, the settings, the templates, the live changes. No globals."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment

from briefbox.db import Database
from briefbox.settings import Settings
from briefbox.tables import User
from desk.live import Live
from desk.tools import Tools


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts of one running desk."""

    database: Database
    settings: Settings
    pages: Environment
    live: Live
    tools: Tools

    @property
    def https(self) -> bool:
        """Whether browsers reach the desk encrypted."""
        return self.settings.desk_address.startswith("https://")


def desk_of(request: Request) -> Desk:
    """The desk that answers this request."""
    desk: Desk = request.app.state.desk
    return desk


def user_of(request: Request) -> User | None:
    """Who is signed in, where the route asked for it."""
    user: User | None = getattr(request.state, "user", None)
    return user


async def form_fields(request: Request) -> dict[str, str]:
    """The text fields of a form. FastAPI's own Form() takes an empty field for a missing one; here they differ."""
    form = await request.form(max_files=1, max_fields=20)
    return {
        # Browsers send every line break as CRLF, and PostgreSQL takes no NUL.
        name: value.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
        for name, value in form.items()
        if isinstance(value, str)
    }


TheDesk = Annotated[Desk, Depends(desk_of)]
Fields = Annotated[dict[str, str], Depends(form_fields)]


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """One rendered template."""
    desk = desk_of(request)
    html = desk.pages.get_template(template).render(path=request.url.path, user=user_of(request), **values)
    return HTMLResponse(html, status_code=status)


def wants_json(request: Request) -> bool:
    """Whether a program asks, not a person's browser."""
    return "application/json" in request.headers.get("accept", "")


def answer(request: Request, to: str, **values: Any) -> Response:
    """What follows a form: JSON for a program, the next page for a person."""
    if wants_json(request):
        return JSONResponse({"ok": True, **values})
    return RedirectResponse(to, status_code=303)
