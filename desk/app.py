"""The desk as one application: routes, who may use them, and what wraps them. Nothing is global."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from briefbox.db import Database
from briefbox.settings import Settings
from desk import (
    access,
    answer_times,
    auth,
    categories,
    conversation,
    cost,
    numbers,
    problems,
    queue,
    regroup,
    skipped,
    status,
    training,
)
from desk.chores import Chore, Chores, move_merged, wake
from desk.context import Desk
from desk.live import Live
from desk.pages import STATIC, load_pages
from desk.security import Guard
from desk.tools import Tools


def create_app(database: Database, settings: Settings, tools: Tools = Tools()) -> FastAPI:
    """The desk on this database. The caller keeps the database and closes it."""
    pages = load_pages()
    live = Live(database, partial(queue.live_rows, pages))
    chores = Chores(
        [
            Chore("waking", 1.0, partial(wake, database)),
            Chore("moving", 2.0, partial(move_merged, database)),
        ]
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        chores.start()
        yield
        live.close()
        chores.stop()

    app = FastAPI(title="briefbox desk", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.desk = Desk(database, settings, pages, live, tools)
    app.state.days = numbers.KeptDays()

    # A new page goes into the second list: who is not signed in gets nothing unless it stands in the first.
    for router in (auth.public, status.public):
        app.include_router(router, dependencies=[Depends(access.anyone)])
    for router in (
        queue.router,
        conversation.router,
        regroup.router,
        skipped.router,
        status.router,
        cost.router,
        training.router,
        categories.router,
        answer_times.router,
        numbers.router,
        auth.router,
    ):
        app.include_router(router, dependencies=[Depends(access.signed_in)])
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_api_route(
        "/favicon.ico",
        _favicon,
        methods=["GET"],
        dependencies=[Depends(access.anyone)],
        include_in_schema=False,
    )

    problems.install(app)
    app.add_middleware(Guard, https=app.state.desk.https)
    return app


def _favicon() -> FileResponse:
    return FileResponse(STATIC / "favicon.svg", media_type="image/svg+xml")
