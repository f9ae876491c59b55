"""Definitions on their way in: JSON or YAML, bounded, handed to the engine as they came."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from fastapi import Depends
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

from aggregates.definition import ROLES_MAX, TASKS_MAX, parse_definition, validate
from aggregates.definitions.shape import DefinitionShape, TaskShape
from aggregates.plan import plan
from processors.api.problems import Problem
from processors.api.requests import DefinitionRequest, JsonRoute, StrictRequest, media_type
from processors.plan_summary import summary

JSON, YAML = "application/json", ("application/yaml", "application/x-yaml", "text/yaml")

DOCUMENT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A workflow's definition; YAML is the same in other words.",
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/Definition"}},
            YAML[0]: {"schema": {"type": "string"}},
        },
    }
}
"""What the OpenAPI document says of a route that takes a definition."""


class DefinitionRoute(JsonRoute):
    """A route that may take a whole definition."""

    request: ClassVar[type[StrictRequest]] = DefinitionRequest


async def document(request: Request) -> dict[str, Any]:
    """The definition in a request, as the commands to a workflow carry it; raises Problem."""
    kind = media_type(request.headers.get("content-type"))
    if kind in YAML:
        raw = await request.body()
        if b"\0" in raw:
            raise Problem("INVALID_PAYLOAD", "Text may not hold the character NUL; leave it out.")
        try:
            return {"source": raw.decode(), "format": "yaml"}
        except UnicodeDecodeError as wrong:
            detail = f"The document is not UTF-8 at byte {wrong.start}; encode it so."
            raise Problem("INVALID_YAML", detail) from None
    if kind != JSON:
        raise Problem("UNSUPPORTED_MEDIA_TYPE", f"Send the definition as {JSON} or {YAML[0]}.")
    found = await request.json()
    if not isinstance(found, dict):
        raise Problem("INVALID_TYPE", "A definition is a JSON object.", "")
    return {"definition": found}


Document = Annotated[dict[str, Any], Depends(document)]


def plan_of(said: dict[str, Any]) -> dict[str, Any]:
    """The plan of a definition, or Refused."""
    if "source" in said:
        return summary(plan(parse_definition(said["source"], said["format"])))
    return summary(plan(validate(said["definition"])))


def schemas() -> dict[str, Any]:
    """The JSON schemas of a definition and its parts, without what only the engine can check."""
    _, found = models_json_schema(
        [(DefinitionShape, "validation"), (TaskShape, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    parts: dict[str, Any] = found["$defs"]
    whole = parts["Definition"] = parts.pop("DefinitionShape")
    tasks: dict[str, Any] = {"$ref": "#/components/schemas/TaskShape"}
    whole["properties"]["tasks"] |= {"items": tasks, "maxItems": TASKS_MAX, "minItems": 1}
    whole["properties"]["agents"] |= {"maxProperties": ROLES_MAX}
    return parts
