"""The OpenAPI document: what FastAPI derives, and what holds for every route.

`orchestrator api --openapi > processors/api/openapi.json` renews the copy in the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from processors.api import problems
from processors.api.answers import POSITION
from processors.api.definitions import schemas
from processors.api.shown import ProblemShown

DESCRIPTION = """\
Coordinates multi-agent workflows. Every request that changes something is a command on the engine's
log; the answer is its committed outcome. Every error is an RFC 9457 problem.

Under `/api/v1/workflows/{workflow_id}/…` the newest execution of the workflow is meant; under
`/api/v1/executions/{execution_id}/…` exactly one.
"""
SNAPSHOT = Path(__file__).with_name("openapi.json")
JSON = "application/json"
SCHEMA = "#/components/schemas/"
WRITES = frozenset({"post", "put", "delete"})
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {"description": "The version, for If-Match.", "schema": {"type": "string"}},
    "Idempotency-Key": {"description": "The command's name.", "schema": {"type": "string"}},
    "Location": {"description": "Where it is.", "schema": {"type": "string"}},
    POSITION: {
        "description": "`partition:position` in the log, for `min_position`.",
        "schema": {"type": "string", "pattern": r"^\d+:\d+$"},
    },
}


def described(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, routes=app.routes, description=DESCRIPTION
        )
        components = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            components.pop(name, None)
        components |= schemas()
        components["Problem"] = ProblemShown.model_json_schema()
        document["components"]["headers"] = HEADERS
        document["components"]["responses"] = {
            "Problem": {
                "description": "Why not (RFC 9457).",
                "content": {problems.MEDIA_TYPE: {"schema": {"$ref": f"{SCHEMA}Problem"}}},
            }
        }
        for path in document["paths"].values():
            for method, operation in path.items():
                _complete(method, operation)
        app.openapi_schema = document
    return app.openapi_schema


def _complete(method: str, operation: dict[str, Any]) -> None:
    """What every operation may answer."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    parameters = operation.get("parameters", ())
    for parameter in parameters:
        parameter["schema"] = _without_null(parameter["schema"])
        parameter["schema"].pop("description", None)
    names = {parameter["name"] for parameter in parameters}
    if method in WRITES and "Idempotency-Key" in names:
        for status in ("200", "201"):
            if status in responses:
                place = ("Location",) if status == "201" else ()
                responses[status]["headers"] = _headers(POSITION, "Idempotency-Key", *place)
                responses["202"] = {
                    "description": "On its way; `Location` has the outcome in a moment.",
                    "content": responses[status]["content"],
                    "headers": _headers("Location", "Idempotency-Key"),
                }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out is not null for that."""
    choices = schema.get("anyOf", [])
    if {"type": "null"} not in choices:
        return schema
    rest = [choice for choice in choices if choice != {"type": "null"}]
    kept = {name: value for name, value in schema.items() if name != "anyOf"}
    return kept | (rest[0] if len(rest) == 1 else {"anyOf": rest})


def written(app: FastAPI) -> bytes:
    """The document as the repository has it."""
    return orjson.dumps(described(app), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"
