"""The API as an application of its own under /api/v1: its routes, its errors, its schema."""

from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from desk import access
from desk.api import (
    briefs,
    conversations,
    emails,
    judgements,
    mailboxes,
    me,
    operation,
    problems,
    schema,
    training,
)
from desk.context import page

PREFIX = "/api/v1"


def create_api() -> FastAPI:
    """The API; its desk comes later (desk/app.py: equip)."""
    api = FastAPI(
        title="briefbox",
        version="1",
        summary="Conversations, briefs and what agents make of them, for programs.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    for router in (
        me.router,
        conversations.router,
        emails.router,
        briefs.router,
        judgements.router,
        mailboxes.router,
        training.router,
        operation.router,
    ):
        api.include_router(router)
    for path, endpoint in (("/openapi.json", _openapi), ("/docs", _docs)):
        api.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            dependencies=[Depends(access.anyone)],
            include_in_schema=False,
        )
    api.openapi = lambda: schema.document(api, PREFIX)  # type: ignore[method-assign]
    problems.install(api)
    return api


def _openapi(request: Request) -> Response:
    return JSONResponse(_schema(request))


def _docs(request: Request) -> HTMLResponse:
    return page(request, "api_docs.html", groups=schema.groups(_schema(request)))


def _schema(request: Request) -> dict[str, Any]:
    api: FastAPI = request.app
    return api.openapi()
