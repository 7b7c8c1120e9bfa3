"""Errors of the API as problem documents (RFC 9457)."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from briefbox.errors import BriefboxError, InvalidValueError
from briefbox.store.idempotency import KeyReusedError
from desk.api.answers import NewerError, etag, loaded
from desk.problem_json import problem_document
from desk.problems import SENTENCES, Failsafe, status_of

log = logging.getLogger(__name__)

SAID = {
    404: "There is no such address in the API; /api/v1/docs lists those there are.",
    405: "This address does not take this kind of request; /api/v1/docs lists those it takes.",
}


def install(api: FastAPI) -> None:
    """Let these answer for every error of the API."""
    api.add_exception_handler(BriefboxError, _expected)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(NewerError, _newer)
    api.add_middleware(Failsafe, answer=_unexpected)


async def _expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, BriefboxError)
    status = 422 if isinstance(error, InvalidValueError) else status_of(error)
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
        # The text names the database's address: that is for the log, not for whoever asks.
        said = SENTENCES.get(status, "Something is wrong with this installation; its log says what.")
        return problem_document(request.url.path, status, said)
    kind = {404: "not-found", 409: "conflict", 422: "invalid-value"}.get(status, "")
    if isinstance(error, KeyReusedError):
        kind = "idempotency-key-reused"
    return problem_document(request.url.path, status, str(error), kind=kind)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    said = error.detail if error.detail != HTTPStatus(status).phrase else ""
    said = said or SAID.get(status) or SENTENCES.get(status, f"{HTTPStatus(status).phrase}.")
    return problem_document(request.url.path, status, said, headers=error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"field": ".".join(str(part) for part in one["loc"]), "message": str(one["msg"])[:300]}
        for one in error.errors()
    ]
    if any(one["field"].startswith("path.") for one in errors):
        return problem_document(request.url.path, 404, SAID[404], kind="not-found")
    first = errors[0]
    said = f"{first['field']}: {first['message']}."
    return problem_document(request.url.path, 422, said, kind="invalid-value", errors=errors)


async def _newer(request: Request, error: Exception) -> Response:
    assert isinstance(error, NewerError)
    return problem_document(
        request.url.path,
        412,
        "It was changed since you saw it, and nothing was written. Look at the newer one, which is in `current`, and try again with its ETag.",
        kind="newer",
        headers={"ETag": etag(error.body)},
        current=loaded(error.body),
    )


def _unexpected(request: Request, status: int, sentence: str) -> Response:
    return problem_document(request.url.path, status, sentence)
