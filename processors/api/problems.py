"""What is refused over HTTP: RFC 9457 problem documents, and which status stands for which code.

The engine says why by a code (`aggregates.problem`); here is the one table that turns codes into
statuses. Nothing of our inside gets out: what was not foreseen is a 500 with the request's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from aggregates.problem import LIST_ITEMS_MAX, Refused, bounded
from streams.strict import pointer

MEDIA_TYPE = "application/problem+json"

NOT_FOUND, CONFLICT, UNPROCESSABLE = 404, 409, 422

STATUSES: dict[str, int] = {
    "INVALID_JSON": 400,
    "INVALID_YAML": 400,
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "NOT_YOURS": 403,
    "NOT_FOUND": NOT_FOUND,
    "UNKNOWN_AGENT": NOT_FOUND,
    "UNKNOWN_DEAD_LETTER": NOT_FOUND,
    "UNKNOWN_EXECUTION": NOT_FOUND,
    "UNKNOWN_TASK": NOT_FOUND,
    "UNKNOWN_TENANT": NOT_FOUND,
    "UNKNOWN_WORKFLOW": NOT_FOUND,
    "METHOD_NOT_ALLOWED": 405,
    "NOT_ACCEPTABLE": 406,
    "REQUEST_TIMEOUT": 408,
    "CIRCUIT_OPEN": CONFLICT,
    "COMPENSATED": CONFLICT,
    "COMPENSATING": CONFLICT,
    "DEAD_LETTER_DISCARDED": CONFLICT,
    "EXECUTION_ENDED": CONFLICT,
    "EXECUTION_EXISTS": CONFLICT,
    "IN_FLIGHT": CONFLICT,
    "LATE_ANSWER": CONFLICT,
    "NOT_COMPENSABLE": CONFLICT,
    "NOT_COMPENSATING": CONFLICT,
    "NOT_FAILED": CONFLICT,
    "NOT_WAITING": CONFLICT,
    "OUT_OF_ORDER": CONFLICT,
    "SEALING_OFF": CONFLICT,
    "TASK_COMPLETED": CONFLICT,
    "TOO_MANY_ATTEMPTS": CONFLICT,
    "TOO_MANY_SIGNALS": CONFLICT,
    "TRUNCATED": CONFLICT,
    "WORKFLOW_ARCHIVED": CONFLICT,
    "WORKFLOW_EXISTS": CONFLICT,
    "TENANT_ERASED": 410,
    "VERSION_CONFLICT": 412,
    "TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "BUSY": 429,
    "ENGINE_FULL": 429,
    "OVER_QUOTA": 429,
    "TOO_MANY_REQUESTS": 429,
    "INTERNAL": 500,
    "UNREADABLE": 500,
    "KEY_UNAVAILABLE": 503,
    "NO_OUTCOME": 503,
    "READ_MODEL_BEHIND": 503,
    "UNAVAILABLE": 503,
}
"""By code; the engine's other refusals are of what was sent: 422."""

_OF_STATUS = {
    400: "INVALID_REQUEST",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
}
_OF_PYDANTIC = {"missing": "MISSING_FIELD", "extra_forbidden": "UNKNOWN_FIELD"}


class Problem(HTTPException):
    """A refusal with its HTTP status; the other arguments are those of `Refused`."""

    def __init__(
        self,
        code: str,
        detail: str,
        pointer: str | None = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        self.refused = Refused(code, detail, pointer, **facts)
        super().__init__(status or STATUSES.get(code, UNPROCESSABLE), detail, headers)

    def document(self) -> dict[str, Any]:
        """The problem document, without its status."""
        return self.refused.problem()


def answer(
    document: dict[str, Any], status: int, headers: Mapping[str, str] | None = None
) -> Response:
    """A problem as a response."""
    body = orjson.dumps({"status": status} | document, default=str)
    return Response(body, status, headers, MEDIA_TYPE)


def of_document(document: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A refusal that the engine wrote; its status follows from its code."""
    status = STATUSES.get(str(document.get("code")), UNPROCESSABLE)
    if status in (429, 503):
        headers = {"Retry-After": "1", **(headers or {})}
    return answer(document, status, headers)


def of_http(error: HTTPException) -> Response:
    """A problem of ours, or what the framework says of paths and methods."""
    if isinstance(error, Problem):
        return answer(error.document(), error.status_code, error.headers)
    code = _OF_STATUS.get(error.status_code, "INVALID_REQUEST")
    return answer(Refused(code, f"{error.detail}.").problem(), error.status_code, error.headers)


def of_validation(error: RequestValidationError) -> Response:
    """What is wrong with parameters and body: the first mistake, and a bounded list of all."""
    found = [_mistake(one) for one in list(error.errors())[:LIST_ITEMS_MAX]]
    first = found[0]
    refused = Refused(first["code"], first["detail"], first.get("pointer"), errors=found)
    document = refused.problem()
    if "parameter" in first:
        document["parameter"] = first["parameter"]
    return answer(document, UNPROCESSABLE)


def _mistake(error: Mapping[str, Any]) -> dict[str, Any]:
    place: Sequence[Any] = error["loc"]
    code = _OF_PYDANTIC.get(error["type"], "INVALID_VALUE")
    text = str(error["msg"]).removeprefix("Value error, ")
    said: dict[str, Any] = {"code": code, "detail": bounded(f"{text}.")}
    if place[0] == "body":
        said["pointer"] = pointer(place[1:])
    else:
        said["parameter"] = bounded(str(place[-1]))
    return said
