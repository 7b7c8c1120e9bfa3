"""How answers go out: one thing with its ETag, a page with its link to the next, and writes that happen once."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from fastapi.responses import Response
from pydantic import BaseModel
from sqlmodel import Session

from briefbox.errors import InvalidValueError
from briefbox.store import exports, idempotency
from desk.api.access import Caller
from desk.api.models import MAX_ID
from desk.context import Desk, desk_of

JSON = "application/json"

T = TypeVar("T")


def etag(body: str) -> str:
    """What names these contents: the same for as long as nothing that is shown has changed."""
    return f'"{sha256(body.encode()).hexdigest()[:20]}"'


def one(request: Request, value: BaseModel, *, status: int = 200) -> Response:
    """One thing; 304 without it when the asker holds these very contents."""
    return _one(request, value.model_dump_json(), status)


def _one(request: Request, body: str, status: int, **headers: str) -> Response:
    tag = etag(body)
    if request.method == "GET" and _names(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, status_code=status, media_type=JSON, headers={"ETag": tag} | headers)


def _names(given: str, tag: str) -> bool:
    """Whether a list of tags names this one. Proxies that compress make a tag weak (W/), which means the same here."""
    return given.strip() == "*" or tag in [part.strip().removeprefix("W/") for part in given.split(",")]


def page(request: Request, items: Sequence[BaseModel], after: str | None) -> Response:
    """One page of a list; `after` is where the next one begins."""
    body = json.dumps(
        {"items": [item.model_dump(mode="json") for item in items], "next": after}, ensure_ascii=False
    )
    headers = {}
    if after is not None:
        link = request.url.include_query_params(after=after)
        headers["Link"] = f'<{link.path}?{link.query}>; rel="next"'
    return Response(body, media_type=JSON, headers=headers)


def part(request: Request, found: exports.Part[T], out: Callable[[T], BaseModel]) -> Response:
    """One page of a list by id, each row made ready by `out`."""
    after = None if found.next is None else str(found.next)
    return page(request, [out(row) for row in found.rows], after)


def after_id(text: str) -> int:
    """The id after which a page begins, in lists by id. Raises InvalidValueError."""
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 11):
        raise InvalidValueError(
            "after: this is no place in the list; expected the `next` of the page before."
        )
    return min(int(text), MAX_ID)


class NewerError(Exception):
    """If-Match names contents that are no longer those that stand there."""

    def __init__(self, body: str) -> None:
        """`body` is what stands there now."""
        super().__init__("newer")
        self.body = body


@dataclass(frozen=True, slots=True)
class Once:
    """A request that changes something: it happens in one transaction, and once for its Idempotency-Key."""

    request: Request
    desk: Desk
    key: str
    request_hash: str

    def do(self, change: Callable[[Session], BaseModel], *, status: int = 200) -> Response:
        """Change something and answer with what it is now. Raises what the change raises."""
        caller: Caller = self.request.state.caller

        def answer(session: Session) -> idempotency.Answer:
            return idempotency.Answer(status, change(session).model_dump_json())

        done = idempotency.once(self.desk.database, caller.token.id, self.key, self.request_hash, answer)
        repeated = {"Idempotent-Replayed": "true"} if done.repeated else {}
        return _one(self.request, done.body, done.status, **repeated)

    def check_match(self, current: BaseModel) -> None:
        """Raises NewerError when If-Match is given and names something else than this."""
        given = self.request.headers.get("if-match")
        body = current.model_dump_json()
        if given is not None and not _names(given, etag(body)):
            raise NewerError(body)


async def _once(
    request: Request,
    idempotency_key: Annotated[
        str,
        Header(
            max_length=idempotency.MAX_KEY,
            description="A name of your own for this request, such as a UUID. Sent again within 24 hours, it gets the same answer and changes nothing.",
        ),
    ] = "",
) -> Once:
    body = await request.body()
    asked = "\n".join((request.method, request.url.path, request.url.query)).encode() + b"\n" + body
    return Once(request, desk_of(request), idempotency_key.strip(), sha256(asked).hexdigest())


OnceOnly = Annotated[Once, Depends(_once)]


def loaded(body: str) -> Any:
    """The contents that a NewerError carries."""
    return json.loads(body)
