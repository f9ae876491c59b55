"""The messages themselves, made from the classes that the engine reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model
from pydantic import Field as ModelField

from aggregates import DECIDERS
from aggregates.sealed import Clear, sealed_fields
from processors.agents.wire import EXTENSION, Assignment
from processors.asyncapi.envelopes import (
    COMMAND,
    EVENT,
    GATE,
    HEARTBEAT,
    OUTCOME,
    REFUSED,
    SUBSCRIBED,
    Schema,
    record,
    ref,
    text,
)
from processors.partition_state import REFUSAL
from streams.sealing.token import MARK

SEALED = (
    f'Where the engine has keys, a payload is sealed at rest: `{{"{MARK}": …}}` in place of'
    " a value, `sealed:…` within a text."
)
CLOUD_EVENT = "application/cloudevents+json"
JSON = "application/json"


def schema_of(kind: type, *, strict: bool) -> Schema:
    """The data of a command or an event; `strict` says that nothing else may be in it."""
    hints = get_type_hints(kind, include_extras=True)
    given: dict[str, Any] = {}
    for field in fields(kind):
        if field.name.startswith("_"):
            continue
        default: Any = ... if field.default is MISSING else field.default
        if field.default_factory is not MISSING:
            default = ModelField(default_factory=field.default_factory)
        given[field.name] = (hints[field.name], default)
    config = ConfigDict(extra="forbid" if strict else "ignore")
    schema = _of_model(create_model(kind.__name__, __config__=config, **given))
    for name, member in schema.get("properties", {}).items():
        marks = [mark for mark in get_args(hints[name])[1:] if isinstance(mark, Clear)]
        if name in sealed_fields(kind):
            member["description"] = SEALED
        elif marks:
            member["description"] = marks[0].why
    return schema


def _of_model(model: type[BaseModel]) -> Schema:
    schema = {
        k: v for k, v in model.model_json_schema().items() if k not in ("title", "description")
    }
    assert "$defs" not in schema, "messages are flat"
    for member in schema.get("properties", {}).values():
        del member["title"]
    return schema


def said_of(kind: type[Any]) -> str:
    """A message's own description; dataclasses without one invent theirs."""
    said = (kind.__doc__ or "").strip()
    return "" if said.startswith(f"{kind.__name__}(") else said


def vocabulary() -> Iterator[tuple[str, type[Any], bool]]:
    """Every message of the aggregates: (aggregate, class, whether it is a command)."""
    for decider in DECIDERS:
        for kind in decider.commands:
            yield decider.name, kind, True
        for kind in decider.events:
            yield decider.name, kind, False


def assignment() -> Schema:
    """A task as an A2A SendMessage request; the engine's own words are in its metadata."""
    hints = get_type_hints(Assignment)
    own = {f.name: f.default for f in fields(Assignment) if f.name != "input"}
    members = {
        name: (hints[name], ... if default is MISSING else default) for name, default in own.items()
    }
    told = _of_model(create_model("Told", **members))  # type: ignore[call-overload]
    message = record(
        {
            "messageId": {
                "type": "string",
                "description": "The idempotency key: the same for every delivery of an attempt.",
            },
            "contextId": text("The execution."),
            "role": {"const": "ROLE_USER"},
            "parts": {
                "type": "array",
                "items": record({"data": {"description": f"The input. {SEALED}"}}, ("data",)),
                "minItems": 1,
                "maxItems": 1,
            },
            "extensions": {"type": "array", "items": {"type": "string"}},
            "metadata": record(
                {EXTENSION: record(told["properties"], told["required"])}, (EXTENSION,)
            ),
        },
        ("messageId", "contextId", "role", "parts", "extensions", "metadata"),
    )
    return record({"message": message}, ("message",))


OTHERS: dict[str, tuple[str, str, Schema]] = {
    "Outcome": (JSON, "What became of a command.", OUTCOME),
    "Task": (JSON, "An attempt of a task, or of undoing one, for an agent.", assignment()),
    "Withdrawn": (
        "text/plain",
        "The message id of a task whose answer nobody wants any more.",
        {"type": "string"},
    ),
    "Gate": (JSON, "An agent gets no new work for now, or does again.", GATE),
    "Subscribed": (JSON, "The first message: from where events follow.", SUBSCRIBED),
    "Heartbeat": (JSON, "Everything up to here was sent.", HEARTBEAT),
}
"""What is neither a command nor an event: content type, summary, payload."""


def messages() -> tuple[dict[str, Schema], dict[str, Schema], list[str], list[str]]:
    """All messages and the schemas of their data, and the names of commands and of events."""
    found: dict[str, Schema] = {}
    schemas: dict[str, Schema] = {"Command": COMMAND, "Event": EVENT, REFUSAL: REFUSED}
    names: dict[bool, list[str]] = {True: [], False: []}
    for aggregate, kind, is_command in vocabulary():
        name = kind.__name__
        assert name not in schemas, f"two messages are called {name}"
        schemas[name] = schema_of(kind, strict=is_command)
        names[is_command].append(name)
        envelope = "Command" if is_command else "Event"
        found[name] = _message(name, said_of(kind), envelope, f"^{aggregate}/")
    names[False].append(REFUSAL)
    refused = "A command was understood and refused: who, what, why."
    found[REFUSAL] = _message(REFUSAL, refused, "Event", "/")
    for name, (content, summary, schema) in OTHERS.items():
        found[name] = {
            "name": name,
            "summary": summary,
            "contentType": content,
            "payload": ref("schemas", name),
        }
        schemas[name] = schema
    return found, schemas, names[True], names[False]


def _message(name: str, said: str, envelope: str, subject: str) -> Schema:
    head, _, rest = said.partition("\n\n")
    message: Schema = {"name": name, "contentType": CLOUD_EVENT}
    if head:
        message["summary"] = " ".join(head.split())
    if rest:
        message["description"] = " ".join(rest.split())
    own = {"type": {"const": name}, "subject": {"pattern": subject}, "data": ref("schemas", name)}
    message["correlationId"] = {"location": "$message.payload#/correlationid"}
    message["payload"] = {"allOf": [ref("schemas", envelope), {"properties": own}]}
    return message
