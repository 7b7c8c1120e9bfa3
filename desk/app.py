"""The desk as one application: routes, who may use them, and what wraps them. Nothing is global."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from briefbox.db import Database
from briefbox.settings import Settings
from desk import auth, conversation, cost, problems, queue, regroup, skipped, status, training
from desk.context import Desk
from desk.live import Live
from desk.pages import STATIC, load_pages
from desk.security import Guard


def create_app(database: Database, settings: Settings) -> FastAPI:
    """The desk on this database. The caller keeps the database and closes it."""
    pages = load_pages()
    live = Live(database, partial(queue.live_rows, pages))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        live.close()

    app = FastAPI(title="briefbox desk", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.desk = Desk(database, settings, pages, live)

    # A new page goes into the second list: who is not signed in gets nothing unless it stands in the first.
    for router in (auth.public, status.public):
        app.include_router(router)
    for router in (
        queue.router,
        conversation.router,
        regroup.router,
        skipped.router,
        status.router,
        cost.router,
        training.router,
        auth.router,
    ):
        app.include_router(router, dependencies=[Depends(auth.signed_in)])
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_api_route("/favicon.ico", _favicon, methods=["GET"])

    problems.install(app)
    app.add_middleware(Guard, https=app.state.desk.https)
    return app


def _favicon() -> FileResponse:
    return FileResponse(STATIC / "favicon.svg", media_type="image/svg+xml")
