"""A workflow's definition: read from JSON or YAML, checked once, and plain data from then on.

The language, in both spellings, is the shapes in `definitions.shape`; what fields must mean
together is in `definitions.rules`. Whatever is wrong is refused with one code, one sentence that
names the cure, and a JSON pointer into the document as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import orjson
from pydantic import ValidationError

from aggregates.definitions.model import (
    AgentRequirement,
    Coordination,
    Definition,
    RetryPolicy,
    TaskDefinition,
)
from aggregates.definitions.problems import place, refusal, wrapped
from aggregates.definitions.rules import check
from aggregates.definitions.shape import (
    DefinitionShape,
    PolicyShape,
    TaskShape,
    to_model,
    to_policy,
)
from aggregates.definitions.yaml_text import read
from aggregates.problem import Refused
from streams.strict import Malformed, check_text, parse

__all__ = [
    "AgentRequirement",
    "Coordination",
    "Definition",
    "RetryPolicy",
    "TaskDefinition",
    "parse_definition",
    "parse_policy",
    "validate",
]

DEFINITION_BYTES_MAX = 8 * 1024 * 1024  # one event carries it; twice the largest real one we know
YAML_BYTES_MAX = 1024 * 1024  # YAML is read thirty times more slowly than JSON: up to 0.5 s
TASKS_MAX = 20_000  # what one event and one screen of a person can still hold
ROLES_MAX = 1000  # every role is a stream and a consumer group


def parse_definition(source: bytes | str, format: Literal["json", "yaml"] = "json") -> Definition:  # noqa: A002
    """The definition that a text means, or Refused."""
    try:
        raw = source.encode() if isinstance(source, str) else source
        if format == "json":
            return _checked(parse(raw, bytes_max=DEFINITION_BYTES_MAX))
        return _checked(_yaml(raw))
    except UnicodeEncodeError:
        detail = "The text holds half of a surrogate pair; write both halves, or leave it out."
        raise Refused("INVALID_PAYLOAD", detail) from None
    except Malformed as wrong:
        raise Refused(wrong.code, wrong.detail, wrong.pointer) from None


def validate(document: object) -> Definition:
    """The definition that JSON values mean, or Refused; nothing is assumed about the values."""
    try:
        check_text(document)
    except Malformed as wrong:
        raise Refused(wrong.code, wrong.detail, wrong.pointer) from None
    size = len(orjson.dumps(document))
    if size > DEFINITION_BYTES_MAX:
        detail = f"The definition has {size:,} bytes; at most {DEFINITION_BYTES_MAX:,} may be."
        raise Refused("TOO_LARGE", detail, "")
    return _checked(document)


def parse_policy(document: dict[str, Any]) -> RetryPolicy:
    """The retry policy that an option `retry_policy` of an execution means, or Refused."""
    try:
        return to_policy(PolicyShape.model_validate(document))
    except ValidationError as error:
        raise refusal(error, {"retry_policy": document}, "retry_policy") from None


def _yaml(raw: bytes) -> Any:
    if len(raw) > YAML_BYTES_MAX:
        detail = f"{len(raw):,} bytes of YAML were sent; at most {YAML_BYTES_MAX:,} may be. "
        raise Refused("TOO_LARGE", detail + "Send a larger definition as JSON.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as wrong:
        detail = f"The document is not UTF-8 at byte {wrong.start}; encode it so."
        raise Refused("INVALID_YAML", detail) from None
    document = read(text)
    check_text(document)
    return document


def _checked(document: Any) -> Definition:
    if isinstance(document, list):
        detail = f"The document is a list of {len(document):,}; send one definition at a time."
        raise Refused("INVALID_TYPE", detail, "")
    inner = document["workflow"] if wrapped(document) else document
    if isinstance(inner, dict):
        for field, most in (("tasks", TASKS_MAX), ("agents", ROLES_MAX)):
            found = inner.get(field)
            if isinstance(found, list | dict) and len(found) > most:
                detail = f"There are {len(found):,} {field}; at most {most:,} may be: split the "
                raise Refused("TOO_LARGE", f"{detail}workflow.", place(document, (field,)))
    try:
        shape = DefinitionShape.model_validate(inner)
    except ValidationError as error:
        raise refusal(error, document) from None
    definition = to_model(shape, _tasks(shape.tasks, document))
    check(definition, document)
    return definition


def _tasks(items: list[Any], document: object) -> Iterator[TaskShape]:
    for number, item in enumerate(items):
        try:
            shape = TaskShape.model_validate(item)
        except ValidationError as error:
            raise refusal(error, document, "tasks", number) from None
        yield shape
