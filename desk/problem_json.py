"""Errors of the REST API as RFC 9457 has them: application/problem+json with type, title, status, detail, instance."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.responses import Response

API = "/api/"
MEDIA_TYPE = "application/problem+json"


def problem_document(
    path: str,
    status: int,
    detail: str,
    *,
    kind: str = "",
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    **more: Any,
) -> Response:
    """One error. `kind` tells apart what has the same status; `errors` names fields; `more` is said beside it."""
    said: dict[str, Any] = {
        "type": f"urn:briefbox:problem:{kind}" if kind else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path,
    }
    if errors:
        said["errors"] = list(errors)
    body = json.dumps(said | more, ensure_ascii=False)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def is_api(path: str) -> bool:
    """Whether a path belongs to the REST API."""
    return path.startswith(API)
