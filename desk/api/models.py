"""What all models of the API share. Names of fields are a promise: they may be added to, never changed."""

from datetime import datetime
from typing import Annotated, Generic, TypeVar

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

MAX_ID = 2**31 - 1
Id = Annotated[int, Path(ge=1, le=MAX_ID)]
Limit = Annotated[int, Query(ge=1, le=200, description="Most items on a page.")]
After = Annotated[
    str,
    Query(max_length=100, description="Where the page before this one ended: its `next`. Empty: the first."),
]
Moment = Annotated[datetime, Field(description="UTC, ISO 8601.")]


class Model(BaseModel):
    """Base of everything that comes in or goes out; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


T = TypeVar("T", bound=Model)


class Page(Model, Generic[T]):
    """A page of a list, by keyset: what is added meanwhile moves nothing."""

    items: list[T]
    next: str | None = Field(
        description="Where the next page begins: give it as `after`. null: this is the last page."
    )


class FieldError(Model):
    """What is wrong with one field of a request."""

    field: str
    message: str


class Problem(Model):
    """An error, by RFC 9457."""

    type: str = Field(description="`about:blank`, or a name that tells apart what has the same status.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What was found, what was expected, what helps.")
    instance: str = Field(description="The path that was asked for.")
    errors: list[FieldError] = Field(
        default=[], description="Of a request that does not fit: what is wrong with which field."
    )
