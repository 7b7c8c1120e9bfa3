"""The desk as one application: routes, who may use them, and what wraps them. Nothing is global."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware

from briefbox.db import Database
from briefbox.settings import Settings
from briefbox.store import search
from desk import access, problems, status
from desk.admin import (
    answer_times,
    audit,
    categories,
    connect,
    connect_sign_in,
    connect_trial,
    cost,
    mailboxes,
    people,
    webhook_sender,
    webhooks,
)
from desk.agents import act, conversation, here, original, queue, regroup, skipped
from desk.agents.shown import ShownQueue
from desk.api.app import PREFIX, create_api
from desk.chores import Chore, Chores, calm, forget_drafts, move_merged, wake, watch_mailboxes
from desk.context import Desk
from desk.insight import numbers, training
from desk.live import Live
from desk.pages import STATIC, load_pages
from desk.security import Guard
from desk.sign_in import account, auth, oidc, second_factor, tokens, verify
from desk.times import zone
from desk.tools import Tools


def create_app(database: Database, settings: Settings, tools: Tools = Tools()) -> FastAPI:
    """The desk on this database. The caller keeps the database and closes it."""
    app = routes(https=settings.desk_address.startswith("https://"))
    equip(app, database, settings, tools)
    return app


def routes(*, https: bool) -> FastAPI:
    """All routes and what wraps them. They serve nobody before `equip`."""
    app = FastAPI(title="briefbox desk", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan)

    # A new page goes into the second list: who is not signed in gets nothing unless it stands in the first.
    for router in (auth.public, oidc.public, status.public):
        app.include_router(router, dependencies=[Depends(access.anyone)])
    for router in (
        queue.router,
        act.router,
        conversation.router,
        here.router,
        original.router,
        regroup.router,
        skipped.router,
        status.router,
        cost.router,
        training.router,
        connect.router,
        connect_sign_in.router,
        connect_trial.router,
        mailboxes.router,
        categories.router,
        answer_times.router,
        numbers.router,
        auth.router,
        account.router,
        second_factor.router,
        verify.router,
        oidc.router,
        people.router,
        audit.router,
        tokens.router,
        webhooks.router,
    ):
        app.include_router(router, dependencies=[Depends(access.signed_in)])
    app.state.api = create_api()
    app.mount(PREFIX, app.state.api)
    # Only what is the same for everybody is compressed: the length of a page would tell of what it holds.
    app.mount("/static", GZipMiddleware(StaticFiles(directory=STATIC)), name="static")
    app.add_api_route(
        "/favicon.ico",
        _favicon,
        methods=["GET"],
        dependencies=[Depends(access.anyone)],
        include_in_schema=False,
    )

    problems.install(app)
    app.add_exception_handler(access.NotVerified, verify.ask_again)
    app.add_exception_handler(access.SecondFactorNeeded, second_factor.set_up_first)
    app.add_middleware(Guard, https=https)
    return app


def equip(app: FastAPI, database: Database, settings: Settings, tools: Tools) -> None:
    """What the routes work with, and what is done when nobody asks. Raises SettingsError."""
    zone(settings.timezone)  # refuse to start with one that is none
    pages = load_pages()
    live = Live(database, ShownQueue(pages, settings.timezone))
    app.state.desk = app.state.api.state.desk = Desk(database, settings, pages, live, tools)
    app.state.days = numbers.KeptDays()
    chores = [
        Chore("waking", 1.0, partial(wake, database)),
        Chore("search entries", 0.5, partial(search.index_pending, database)),
        Chore("moving", 2.0, partial(move_merged, database)),
        Chore("audit log", 30.0, partial(audit.check_chain, database)),
        Chore("guessing", 60.0, partial(calm, database)),
        Chore("watching mailboxes", 20.0, partial(watch_mailboxes, database, settings)),
        Chore("forgetting drafts", 30.0, partial(forget_drafts, database)),
    ]
    # A thread of its own: a receiver that takes its time must hold up nothing else.
    sending = [
        Chore("webhooks", 0.5, partial(webhook_sender.send_due, database, settings)),
        Chore("tidying", 600.0, partial(webhook_sender.tidy, database)),
    ]
    app.state.chores = (Chores(chores), Chores(sending))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    for chores in app.state.chores:
        chores.start()
    yield
    app.state.desk.live.close()
    for chores in app.state.chores:
        chores.stop()


def _favicon() -> FileResponse:
    return FileResponse(STATIC / "favicon.svg", media_type="image/svg+xml")
