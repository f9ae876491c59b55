"""JSON schemas of what carries the messages, and of what is no message of an aggregate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streams.codec import ID_BYTES_MAX, REPLY_PREFIX, SOURCE, SPEC_VERSION, TENANT
from streams.message import TOKEN_CHARS_MAX

Schema = dict[str, Any]


def text(description: str = "", **more: Any) -> Schema:
    """A text, of at most as many bytes as an id has."""
    return {"type": "string", "maxLength": ID_BYTES_MAX, **_about(description), **more}


def whole(description: str = "", least: int = 0) -> Schema:
    """An integer."""
    return {"type": "integer", "minimum": least, **_about(description)}


def record(properties: Schema, required: Iterable[str], **more: Any) -> Schema:
    """An object."""
    return {"type": "object", "properties": properties, "required": list(required), **more}


def ref(kind: str, name: str) -> Schema:
    """A reference to one of the components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def _about(description: str) -> Schema:
    return {"description": description} if description else {}


COMMAND = record(
    {
        "specversion": {"const": SPEC_VERSION},
        "id": text("Names the command: said again under the same id, it has one effect.")
        | {"minLength": 1},
        "source": text("Who sends it, in CloudEvents' sense."),
        "type": text("What is wanted."),
        "subject": text("The aggregate that is meant: `kind/id`.", pattern="^[^/]+/.+$"),
        "data": {"type": "object"},
        "tenant": text("On whose behalf; a token says it where tokens are asked for.")
        | {"pattern": f"^{TENANT.pattern}$"},
        "actor": text("Who wants it, for the audit trail."),
        "correlationid": text("What it belongs to; events keep it."),
        "causationid": text("The event that led to it."),
        "traceparent": text("The W3C trace context."),
        "origin": text("From where it was given, as whoever relays it says: for the audit trail."),
        "replyto": text("The stream that gets the outcome.", pattern=f"^{REPLY_PREFIX}"),
        "time": text("When it was said; nothing is decided by it."),
        "expectedversion": whole("The version that the aggregate must have."),
        "token": {
            "type": "string",
            "maxLength": TOKEN_CHARS_MAX,
            "description": "A JSON Web Token, where the engine asks for one.",
        },
    },
    ("id", "type", "subject", "data"),
)
"""The CloudEvents envelope of an intent; what is not needed is left out."""
EVENT = record(
    {
        "specversion": {"const": SPEC_VERSION},
        "id": text("`partition-position`, unique in an engine.", pattern=r"^\d+-\d+$"),
        "source": {"const": SOURCE},
        "type": text("What has happened."),
        "subject": text("The aggregate that it happened to: `kind/id`.", pattern="^[^/]+/.+$"),
        "time": {"type": "string", "format": "date-time"},
        "tenant": text(pattern=f"^{TENANT.pattern}$"),
        "actor": text("Who wanted it; empty where nobody said."),
        "causationid": text("The command that it follows from."),
        "correlationid": text(),
        "traceparent": text(),
        "origin": text("From where it was commanded, where whoever relayed it said so."),
        "partition": whole(),
        "position": whole("1, 2, 3 … within its partition, without a hole.", 1),
        "version": whole("Counts the changes of its aggregate: 1, 2, 3 …"),
        "data": {"type": "object"},
    },
    (
        *("specversion", "id", "source", "type", "subject", "time", "tenant", "actor"),
        *("causationid", "correlationid", "partition", "position", "version", "data"),
    ),
)
"""The CloudEvents envelope of a fact; later versions may have more in it."""

PROBLEM: Schema = {
    "type": text(),
    "title": text(),
    "code": text("What scripts go by."),
    "detail": {"type": "string", "description": "One sentence for people."},
    "pointer": {"type": "string", "description": "A JSON pointer to the place."},
}

REFUSED = record(
    {
        "command_type": text(),
        "command_id": text(),
        "command_tenant": text("Where it is not the subject's own."),
        **PROBLEM,
    },
    ("command_type", "command_id", "code", "detail"),
)
"""The data of a `CommandRejected`, which any aggregate's subject may have."""

OUTCOME = record(
    {
        "command": text("The command's id."),
        "status": {"enum": ["accepted", "rejected"]},
        "partition": whole(),
        "first": whole("The position of its first event."),
        "last": whole("And of its last; below `first` where nothing had to change."),
        "problem": record(PROBLEM, ("code", "detail")),
        "repeated": {"const": True, "description": "The command was known; this is its outcome."},
    },
    ("command", "status", "partition", "first", "last"),
)

GATE = record(
    {"agent": text(), "open": {"type": "boolean"}, "limit": whole("So many tasks at once.")},
    ("agent", "open"),
)

PLACE = "Positions by partition, such as `3:17,5:2`; `from=` resumes there."
SUBSCRIBED = record(
    {"type": {"const": "subscribed"}, "position": {"type": "string", "description": PLACE}},
    ("type", "position"),
)
HEARTBEAT = record(
    {"type": {"const": "heartbeat"}, "position": {"type": "string", "description": PLACE}},
    ("type", "position"),
)
