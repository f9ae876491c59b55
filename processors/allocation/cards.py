"""What hosts say of themselves in Redis, read with care: a bad entry costs nobody else; pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from processors.allocation.candidate import Candidate
from streams.message import DEFAULT_TENANT

AGENTS_A_HOST_MAX = 10_000


class Word(NamedTuple):
    """A host's sign of life: a counter, how often it counts, and what its agents do.

    `gates` has the agents that take less than they could, with how much; `draining` takes nothing.
    """

    beat: int
    every_s: float
    running: dict[str, int]
    gates: dict[str, int]
    draining: bool


def read_word(raw: bytes) -> Word | None:
    """The sign of life in a field of `hosts`; None where it is none."""
    try:
        said = orjson.loads(raw)
        return Word(
            int(said["beat"]),
            float(said.get("every_s") or 1.0),
            _counts(said.get("running")),
            _counts(said.get("gates")),
            bool(said.get("draining")),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None


def read_cards(host: str, raw: bytes) -> dict[str, Candidate] | None:
    """The agents in a field of `hosts:cards`, by id; None where they cannot be read."""
    try:
        cards = [_candidate(host, card) for card in orjson.loads(raw)[:AGENTS_A_HOST_MAX]]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return {one.agent: one for one in cards}


def _counts(said: dict[str, Any] | None) -> dict[str, int]:
    return {agent: int(number) for agent, number in (said or {}).items()}


def _candidate(host: str, card: dict[str, Any]) -> Candidate:
    return Candidate(
        str(card["id"]),
        host,
        str(card.get("tenant") or DEFAULT_TENANT),
        frozenset(map(str, card["roles"])),
        frozenset(map(str, card.get("capabilities") or ())),
        max(1, int(card.get("capacity") or 1)),
        float(card.get("cost") or 0.0),
        card.get("region") or None,
    )
