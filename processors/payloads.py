"""Payloads of commands and events: which fields they are, how each is sealed, opened and shown.

They are declared beside the messages; see `aggregates.sealed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from aggregates import DECIDERS
from aggregates.sealed import Sealed, sealed_fields
from streams.message import Event
from streams.sealing.sealer import Sealer, Unopenable
from streams.sealing.token import IN_TEXT, is_sealed, is_sealed_text, named, parts

Marks = Mapping[str, Sealed]

COMMANDS: dict[tuple[str, str], Marks] = {
    (decider.name, kind.__name__): marks
    for decider in DECIDERS
    for kind in decider.commands
    if (marks := sealed_fields(kind))
}
EVENTS: dict[tuple[str, str], Marks] = {
    (decider.name, kind.__name__): marks
    for decider in DECIDERS
    for kind in decider.events
    if (marks := sealed_fields(kind))
}
TYPED: dict[type[Any], tuple[tuple[str, Sealed], ...]] = {
    kind: tuple(marks.items())
    for decider in DECIDERS
    for kind in decider.commands
    if (marks := sealed_fields(kind))
}
"""The payloads of typed commands."""

WITHHELD = {"$withheld": True}
"""In place of a payload in clear, for who may not read it."""

DOCUMENT = "definition"
"""The payload that a decision needs in clear."""


def is_clear(mark: Sealed, value: Any) -> bool:
    """Whether there is something to seal."""
    if value is None:
        return False
    match mark.form:
        case "value":
            return not is_sealed(value)
        case "values":
            return isinstance(value, dict) and not all(map(is_sealed, value.values()))
        case "text" | "source":
            return isinstance(value, str) and not is_sealed_text(value)


def seal(sealer: Sealer, mark: Sealed, value: Any, subject: str, salt: bytes | None = None) -> Any:
    """A payload, sealed; what is sealed in it stays as it is."""
    if not is_clear(mark, value):
        return value
    match mark.form:
        case "value":
            return sealer.seal_value(value, subject, mark.name, salt)
        case "values":
            return {
                key: each
                if is_sealed(each)
                else sealer.seal_value(each, subject, mark.name, salt and salt + key.encode())
                for key, each in value.items()
            }
        case "text":
            return sealer.seal_text(value, subject, mark.name, salt)
        case "source":
            clear = value.encode(errors="replace")
            return f"{IN_TEXT}{sealer.seal(clear, subject, mark.name, salt)}"


def open_(sealer: Sealer, mark: Sealed, value: Any, subject: str) -> Any:
    """A payload in clear; raises Unopenable."""
    match mark.form:
        case "value":
            return sealer.open_value(value, subject, mark.name)
        case "values":
            if not isinstance(value, dict):
                return value
            return {key: sealer.open_value(each, subject, mark.name) for key, each in value.items()}
        case "text" | "source":
            return sealer.open_text(value, subject, mark.name) if isinstance(value, str) else value


# On the way out ----------------------------------------------------------------------------------


def reveal(sealer: Sealer | Unopenable, mark: Sealed, value: Any, subject: str) -> Any:
    """A payload for a reader; what cannot be opened says so in its place."""
    try:
        if isinstance(sealer, Unopenable):
            if any_sealed(mark, value):
                raise sealer
            return value
        return open_(sealer, mark, value, subject)
    except Unopenable as error:
        if mark.form in ("text", "source"):
            return _unreadable_text(value, error.code)
        if mark.form == "values" and isinstance(value, dict):
            single = Sealed(mark.name)
            return {key: reveal(sealer, single, each, subject) for key, each in value.items()}
        return {"$unreadable": error.code}


def reveal_event(sealer: Sealer | Unopenable, event: Event) -> dict[str, Any]:
    """An event's data with its payloads in clear."""
    marks = EVENTS.get((event.aggregate, event.type))
    if marks is None:
        return event.data
    fresh = {
        name: reveal(sealer, mark, event.data[name], event.subject)
        for name, mark in marks.items()
        if name in event.data
    }
    return event.data | fresh


def withhold(mark: Sealed, value: Any) -> Any:
    """A payload for who may not read it: what is not sealed is left out, but an error's name."""
    if not is_clear(mark, value):
        return value
    match mark.form:
        case "value":
            return WITHHELD
        case "values":
            return {key: each if is_sealed(each) else WITHHELD for key, each in value.items()}
        case "text" | "source":
            name, rest = named(value)
            return f"{name}…" if rest else name


def withheld(raw: bytes) -> bytes:
    """A stored event for who may not read payloads."""
    message = orjson.loads(raw)
    marks = EVENTS.get((message["subject"].partition("/")[0], message["type"]))
    data = message["data"]
    if marks is None or not any(is_clear(mark, data.get(name)) for name, mark in marks.items()):
        return raw
    shown = {name: withhold(mark, data[name]) for name, mark in marks.items() if name in data}
    return orjson.dumps(message | {"data": data | shown})


def any_sealed(mark: Sealed, value: Any) -> bool:
    """Whether something in it is sealed."""
    match mark.form:
        case "value":
            return is_sealed(value)
        case "values":
            return isinstance(value, dict) and any(map(is_sealed, value.values()))
        case "text" | "source":
            return isinstance(value, str) and is_sealed_text(value)


def _unreadable_text(text: str, code: str) -> str:
    cut = parts(text)
    cut[1::2] = [f"[{code}]" for _ in cut[1::2]]
    return "".join(cut)
