"""Payloads in answers: opened for who may read them, which is noted in the audit trail.

Where sealing is off, answers hold what is stored; for who may not read payloads, what is sealed
stays so, and what is stored in clear is left out. What lists say of many is not opened; their texts
leave the sealed part out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from aggregates.sealed import Sealed
from processors.access.roles import Read
from processors.api.reading import Reader
from processors.history import Row
from processors.payloads import withheld, withhold
from processors.reading import ERROR, PROMPT, Payload
from processors.sealing import DEFINED_INPUT
from streams.codec import decode_event
from streams.sealing.token import IN_TEXT, MARK, parts

EXECUTION: Mapping[str, Sealed] = {
    "input": Sealed("input"),
    "output": Sealed("output", "values"),
    "reason": ERROR,
}
TASK: Mapping[str, Sealed] = {"error": ERROR, "output": Sealed("output"), "prompt": PROMPT}

_MARKS = (f'"{MARK}":'.encode(), IN_TEXT.encode())


async def opened(
    reading: Reader,
    subject: str,
    items: Sequence[dict[str, Any]],
    rows: Sequence[Any],
    marks: Mapping[str, Sealed],
) -> None:
    """Put the payloads of one aggregate's items in clear, where they are and if they may be.

    `rows` are what the items were made of, with their JSON as bytes.
    """
    if not reading.who.may(Read.PAYLOADS):
        for item, row in zip(items, rows, strict=True):
            for name, mark in marks.items():
                item[name] = withhold(mark, _value(row[name]))
    found = [
        (item, name, Payload(reading.tenant, subject, mark, value))
        for item, row in zip(items, rows, strict=True)
        for name, mark in marks.items()
        if (value := _sealed(row[name])) is not None
    ]
    if not found or (see := await reading.payloads(subject)) is None:
        return
    clear = await see.payloads([payload for _, _, payload in found])
    for (item, name, _), value in zip(found, clear, strict=True):
        item[name] = value


async def opened_events(reading: Reader, subject: str, rows: Sequence[Row]) -> list[Any]:
    """Stored events of one aggregate as JSON, with their payloads in clear."""
    see, allowed = None, reading.who.may(Read.PAYLOADS)
    if any(_holds(row.message) for row in rows):
        see = await reading.payloads(subject)
    if see is None:
        shown = (row.message if allowed else withheld(row.message) for row in rows)
        return [orjson.Fragment(one) for one in shown]
    events = await see.events([decode_event(row.message) for row in rows])
    return [
        orjson.loads(row.message) | {"data": event.data}
        for row, event in zip(rows, events, strict=True)
    ]


async def opened_definition(reading: Reader, workflow: str, body: bytes) -> bytes:
    """A definition with its tasks' inputs in clear."""
    subject = f"workflow/{workflow}"
    see, allowed = None, reading.who.may(Read.PAYLOADS)
    if _holds(body):
        see = await reading.payloads(subject)
    if see is None and allowed:
        return body
    definition = orjson.loads(body)
    tasks = [task for task in definition["tasks"] if "input" in task]
    mark = Sealed(DEFINED_INPUT)
    if see is None:
        for task in tasks:
            task["input"] = withhold(mark, task["input"])
        return orjson.dumps(definition)
    inputs = [Payload(reading.tenant, subject, mark, task["input"]) for task in tasks]
    for task, value in zip(tasks, await see.payloads(inputs), strict=True):
        task["input"] = value
    return orjson.dumps(definition)


def shortened(reading: Reader, text: str | None) -> str | None:
    """A text without its sealed part, for lists."""
    if not reading.who.may(Read.PAYLOADS):
        text = withhold(ERROR, text)
    if text is None or IN_TEXT not in text:
        return text
    cut = parts(text)
    cut[1::2] = ["…"] * len(cut[1::2])
    return "".join(cut)


def _value(value: bytes | str | None) -> Any:
    return orjson.loads(value) if isinstance(value, bytes) else value


def _sealed(value: bytes | str | None) -> Any:
    """The JSON value or the text, if something of it is sealed; None where nothing is."""
    if isinstance(value, bytes):
        return orjson.loads(value) if _holds(value) else None
    return value if value is not None and IN_TEXT in value else None


def _holds(raw: bytes) -> bool:
    return any(mark in raw for mark in _MARKS)
