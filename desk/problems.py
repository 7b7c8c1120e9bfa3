"""Errors as answers: a page with a sentence for a person, {"error": sentence} for a program.

What we expect (BriefboxError) is told in its own words. What we do not expect is logged under an id, and
the person is told the id and nothing else.
"""

import logging
from collections.abc import Callable
from http import HTTPStatus
from secrets import token_hex
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from briefbox.errors import (
    BriefboxError,
    ConflictError,
    DatabaseBusyError,
    InvalidValueError,
    NotFoundError,
)
from desk.context import page, wants_json
from desk.problem_json import is_api, problem_document

log = logging.getLogger(__name__)

STATUS: tuple[tuple[type[BriefboxError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (InvalidValueError, 400),
    (DatabaseBusyError, 503),
    (BriefboxError, 500),
)

SENTENCES = {
    400: "This request cannot be understood. Go back and try again.",
    401: "Nobody is signed in. Sign in first.",
    403: "This page is for admins.",
    404: "There is no such page.",
    405: "This address does not take this kind of request.",
    503: "The desk cannot reach its database now. No mail is lost; try again in a moment.",
}


def install(app: FastAPI) -> None:
    """Let these handlers answer for every error below them."""
    app.add_exception_handler(BriefboxError, _expected)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Failsafe)


def problem(request: Request, status: int, sentence: str) -> Response:
    """One error in the form that the asker reads."""
    if is_api(request.url.path):
        return problem_document(request.url.path, status, sentence)
    if wants_json(request):
        return JSONResponse({"error": sentence}, status_code=status)
    if "text/event-stream" in request.headers.get("accept", ""):
        return PlainTextResponse(sentence + "\n", status_code=status)
    return page(request, "problem.html", status=status, title=HTTPStatus(status).phrase, sentence=sentence)


def status_of(error: Exception) -> int:
    """The status of an error of ours."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


async def _expected(request: Request, error: Exception) -> Response:
    status = status_of(error)
    if status < 500:
        return problem(request, status, str(error))
    log.error("%s %s: %s", request.method, request.url.path, error)
    # The text names the database's address: that is for the log, not for whoever looks.
    return problem(
        request,
        status,
        SENTENCES.get(status, "Something is wrong with this installation; its log says what."),
    )


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    a_person = not wants_json(request) and "text/event-stream" not in request.headers.get("accept", "")
    if error.status_code == 401 and a_person:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        back = f"?next={quote(target, safe='/')}" if request.method == "GET" and target != "/" else ""
        return RedirectResponse(f"/sign-in{back}", status_code=303)
    said = error.detail if error.detail != HTTPStatus(error.status_code).phrase else ""
    sentence = said or SENTENCES.get(error.status_code, f"{HTTPStatus(error.status_code).phrase}.")
    answer = problem(request, error.status_code, sentence)
    answer.headers.update(error.headers or {})
    return answer


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    in_path = any(part["loc"][:1] == ("path",) for part in error.errors())
    status = 404 if in_path else 400
    return problem(request, status, SENTENCES[status])


class Failsafe:
    """Catches what nobody expected, inside the guard, so that this page has all its headers too."""

    def __init__(self, app: ASGIApp, answer: Callable[[Request, int, str], Response] = problem) -> None:
        self._app, self._answer = app, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            id_ = token_hex(4)
            log.exception("Unexpected error %s: %s %s", id_, scope.get("method", ""), scope.get("path", ""))
            if scope["type"] != "http" or started:
                raise
            sentence = f"Something went wrong that should not have. It is in the log under the id {id_}."
            await self._answer(Request(scope, receive), 500, sentence)(scope, receive, send)
