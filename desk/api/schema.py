"""The OpenAPI document, and the same as a page for people."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute

from desk.api.access import scope
from desk.api.models import Problem
from desk.problem_json import MEDIA_TYPE

DESCRIPTION = """
Send `Authorization: Bearer bbx_...` with a token from your account on the desk. Errors are problem documents
(RFC 9457). Lists come in pages: give the `next` of one as `after` of the following one. With an `Idempotency-Key` a
request that is sent twice has one effect. Single things carry an `ETag`: send it back as `If-None-Match` to get 304
while nothing has changed, or as `If-Match` when you change a conversation, to get 412 when somebody was faster.
""".strip()

_METHODS = ("get", "post", "patch", "put", "delete")
_BLANK: dict[str, Any] = {}


def document(api: FastAPI, prefix: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of all routes; made once."""
    if api.openapi_schema is None:
        made = get_openapi(
            title=api.title,
            version=api.version,
            summary=api.summary,
            description=DESCRIPTION,
            routes=api.routes,
            servers=[{"url": prefix}],
            separate_input_output_schemas=False,
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        # FastAPI's own form of errors, which we do not use.
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= problem.pop("$defs", {}) | {"Problem": problem}
        scopes = {
            (one.path, method.lower()): one.scope for one in scoped(api.routes) for method in one.methods
        }
        for path, operations in made["paths"].items():
            for method, operation in operations.items():
                _complete(operation, scopes.get((path, method)))
        api.openapi_schema = made
    return api.openapi_schema


@dataclass(frozen=True, slots=True)
class ScopedRoute:
    """A route with everything that it depends on, and the scope that it asks for; None where it declares none."""

    path: str
    methods: tuple[str, ...]
    calls: tuple[Any, ...]

    @property
    def scope(self) -> scope | None:
        """The first one, since there is to be one."""
        return next((call for call in self.calls if isinstance(call, scope)), None)


def scoped(routes: Sequence[BaseRoute]) -> list[ScopedRoute]:
    """All routes, those of included routers too."""
    return [
        ScopedRoute(one.path or "", tuple(sorted(one.methods or ())), tuple(_calls(one.dependant)))
        for one in iter_route_contexts(routes)
        if isinstance(one.original_route, APIRoute)
    ]


def _calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for one in dependant.dependencies:
        yield from _calls(one)


def _complete(operation: dict[str, Any], needed: scope | None) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    answers["default"] = {
        "description": "An error.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if needed is not None:
        operation["x-scope"] = needed.name
        role = "" if needed.role == "agent" else f" The token's owner is an {needed.role}."
        role = role.replace("an reviewer", "a reviewer or an admin")
        operation["description"] = (
            f"{operation.get('description', '')}\n\nScope: `{needed.name}`.{role}".strip()
        )


# --- the same for people


@dataclass(frozen=True, slots=True)
class FieldView:
    """One parameter or one field of a body."""

    name: str
    kind: str
    where: str
    required: bool
    text: str


@dataclass(frozen=True, slots=True)
class OperationView:
    """One request that can be made."""

    method: str
    path: str
    anchor: str
    summary: str
    text: str
    scope: str
    parameters: list[FieldView]
    body: list[FieldView]
    answer: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """One kind of thing that goes out."""

    name: str
    text: str
    fields: list[FieldView]


@dataclass(frozen=True, slots=True)
class Group:
    """All requests about one kind of thing, and the things."""

    name: str
    operations: list[OperationView] = field(default_factory=list)
    models: dict[str, ModelView] = field(default_factory=dict)


def groups(made: dict[str, Any]) -> list[Group]:
    """The document by its tags, in the order of the routes."""
    found: dict[str, Group] = {}
    schemas = made["components"]["schemas"]
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            group = found.setdefault(tag, Group(tag))
            group.operations.append(_operation(method, path, operation, schemas))
            for name in _answer_models(operation):
                name = _item_of(name, schemas)
                if name not in group.models:
                    group.models[name] = _model(name, schemas)
    return list(found.values())


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> OperationView:
    body = operation.get("requestBody", _BLANK).get("content", _BLANK).get("application/json", _BLANK)
    text = operation.get("description", "").partition("Scope: `")[0].strip()
    return OperationView(
        method=method.upper(),
        path=path,
        anchor=operation["operationId"],
        summary=operation["summary"],
        text=" ".join(text.split()),
        scope=operation.get("x-scope", ""),
        parameters=[
            FieldView(
                one["name"],
                _kind(one.get("schema", _BLANK)),
                one["in"],
                one.get("required", False),
                one.get("description", one.get("schema", _BLANK).get("description", "")),
            )
            for one in operation.get("parameters", ())
        ],
        body=_fields(_resolve(body.get("schema", _BLANK), schemas)),
        answer=", ".join(_answer_models(operation)),
    )


def _answer_models(operation: dict[str, Any]) -> list[str]:
    found = []
    for status, answer in operation["responses"].items():
        for content in answer.get("content", _BLANK).values():
            name = content.get("schema", _BLANK).get("$ref", "").rpartition("/")[2]
            if status != "default" and name:
                found.append(name)
    return found


def _item_of(name: str, schemas: dict[str, Any]) -> str:
    """Of a page: what it is a page of."""
    items = schemas[name].get("properties", _BLANK).get("items", _BLANK).get("items", _BLANK)
    return str(items.get("$ref", name).rpartition("/")[2])


def _model(name: str, schemas: dict[str, Any]) -> ModelView:
    schema = schemas[name]
    fields = _fields(schema | {"required": ()})  # all of them come
    return ModelView(name, " ".join(schema.get("description", "").split()), fields)


def _fields(schema: dict[str, Any]) -> list[FieldView]:
    required = schema.get("required", ())
    return [
        FieldView(name, _kind(one), "body", name in required, one.get("description", ""))
        for name, one in schema.get("properties", _BLANK).items()
    ]


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = schemas[name] if name else schema
    return found


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(f'"{one}"' for one in schema["enum"])
    if "const" in schema:
        return f'"{schema["const"]}"'
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', _BLANK))}"
    known = {"date-time": "time", "date": "day", "binary": "bytes"}
    return known.get(schema.get("format", ""), str(schema.get("type", "anything")))
