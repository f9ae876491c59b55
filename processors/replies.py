"""Outcomes on their way back to whoever asked with `replyto`."""

from __future__ import annotations

from typing import Any

import orjson

from streams.message import Outcome


def encode_outcome(outcome: Outcome, repeated: bool = False) -> bytes:
    """The JSON that a reply stream's entry carries in its field `message`."""
    answer: dict[str, Any] = {
        "command": outcome.command_id,
        "status": "rejected" if outcome.problem else "accepted",
        "partition": outcome.partition,
        "first": outcome.first,
        "last": outcome.last,
    }
    if outcome.problem:
        answer["problem"] = outcome.problem
    if repeated:
        answer["repeated"] = True
    return orjson.dumps(answer)


def decode_outcome(raw: bytes) -> Outcome:
    """The outcome in a reply."""
    answer = orjson.loads(raw)
    return Outcome(
        answer["command"],
        answer["partition"],
        answer["first"],
        answer["last"],
        answer.get("problem"),
        answer.get("repeated", False),
    )
