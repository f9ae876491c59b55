"""Outcomes of commands that were not waited for, as the log has them."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path
from starlette.responses import Response

from processors.api import shown
from processors.api.answers import POSITION, json
from processors.api.parameters import ID, ID_CHARS_MAX
from processors.api.problems import Problem
from processors.api.reading import Reading
from processors.api.requests import JsonRoute
from processors.api.sending import command_id
from processors.api.trouble import RETRY_AFTER_S
from processors.partition_state import REFUSAL, REFUSED_COMMAND
from streams.partition import partition_of

COMMITS_MAX = 10_000  # of a partition, the newest: as far back as its owner remembers at most

FIND = """
SELECT first_position, commands FROM outcome_of($1, $2, $3)
"""
"""The commit of a command, among the newest; the tenant is a part of the command's name."""

FIRST = """
SELECT type, message FROM events WHERE partition = $2 AND position = $3
  AND message ->> 'tenant' = $1
"""

router = APIRouter(prefix="/api/v1/outcomes", tags=["operations"], route_class=JsonRoute)


@router.get("/{subject}/{key}", response_model=shown.KnownOutcome)
async def get_outcome(
    subject: Annotated[str, Path(pattern=ID, max_length=ID_CHARS_MAX, description="Its id.")],
    key: Annotated[str, Path(pattern=ID, max_length=ID_CHARS_MAX, description="Idempotency-Key.")],
    reading: Reading,
) -> Response:
    """What became of a command to `subject`; 404 while that is not known, or not any more."""
    partition = partition_of(subject, reading.gateway.partitions)
    name = command_id(reading.who, key)
    found = await reading.gateway.row(reading.who, FIND, partition, name, COMMITS_MAX)
    if found is None:
        detail = f"No outcome of {key} is known: it is under way, was never given, or is long past."
        raise Problem("NOT_FOUND", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
    first, last = _span(found["first_position"], orjson.loads(found["commands"]), name)
    said: dict[str, Any] = {"command_id": name, "status": "accepted", "changed": last >= first}
    event = await reading.row(FIRST, partition, first) if first == last else None
    if event is not None and event["type"] == REFUSAL:
        data = orjson.loads(event["message"])["data"]
        problem = {name: value for name, value in data.items() if name not in REFUSED_COMMAND}
        said |= {"status": "rejected", "changed": False, "problem": problem}
    place = f"{partition}:{last}"
    return json(said | {"position": place}, headers={POSITION: place})


def _span(first: int, commands: list[Any], wanted: str) -> tuple[int, int]:
    """The positions of a command's events in its commit."""
    for name, events, *_ in commands:
        if name == wanted:
            return first, first + events - 1
        first += events
    return first, first - 1
