"""A dead letter: what could not be handled, and what people decide about it, with who and why.

The letter itself stands in a table with its bytes; here are only the decisions. They are carried
out by whoever reads that table.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from aggregates.decider import Blueprint, Decider
from aggregates.problem import DETAIL_CHARS_MAX, Refused, bounded

RETRIES_MAX = 1_000  # of one letter; whoever needs more has another problem


@dataclass(slots=True)
class RetryDeadLetter:
    """Try it again. `attempt` says the how manyeth time this is: said twice it is done once."""

    reason: str
    attempt: int | None = None
    _actor: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class DiscardDeadLetter:
    """Let it be; it stays in the table, and is never tried again."""

    reason: str
    _actor: str | None = field(default=None, repr=False)


# Events: names and fields are what is stored; change them only with an upcaster ------------------


@dataclass(slots=True)
class DeadLetterRetried:
    by: str
    reason: str
    attempt: int


@dataclass(slots=True)
class DeadLetterDiscarded:
    by: str
    reason: str


@dataclass(slots=True)
class DeadLetter:
    """How often it was tried again, and whether it was given up."""

    id: str
    attempts: int = 0
    discarded: bool = False


def decide(state: DeadLetter, command: Any, now: datetime) -> list[Any]:
    """The events that follow from a command; nothing where it was said before."""
    match command:
        case RetryDeadLetter():
            by, reason = _responsible(command)
            if state.discarded:
                raise Refused("DEAD_LETTER_DISCARDED", f"The letter {state.id} was discarded.")
            following = state.attempts + 1
            attempt = following if command.attempt is None else command.attempt
            if not 1 <= attempt <= min(following, RETRIES_MAX):
                raise Refused(
                    "INVALID_VALUE",
                    f"The letter was tried again {state.attempts} times; the next attempt is"
                    f" {following}, and {RETRIES_MAX} is the last.",
                    "/attempt",
                )
            return [DeadLetterRetried(by, reason, attempt)] if attempt == following else []
        case DiscardDeadLetter():
            by, reason = _responsible(command)
            return [] if state.discarded else [DeadLetterDiscarded(by, reason)]
    raise Refused("UNKNOWN_COMMAND", f"A dead letter cannot {type(command).__name__}.")


def _responsible(command: RetryDeadLetter | DiscardDeadLetter) -> tuple[str, str]:
    """Who decides, and why: a decision without either is none."""
    if not command._actor:
        raise Refused("MISSING_ACTOR", "Say who decides, in the envelope's `actor`.")
    if not command.reason.strip():
        raise Refused("MISSING_FIELD", "Say why: give a `reason`.", "/reason")
    if len(command.reason) > DETAIL_CHARS_MAX:
        raise Refused("TOO_LARGE", f"Give the reason in {DETAIL_CHARS_MAX} characters.", "/reason")
    return command._actor, bounded(command.reason)


def evolve(state: DeadLetter, event: Any) -> DeadLetter:
    """The state after a fact; never fails, never judges."""
    match event:
        case DeadLetterRetried():
            state.attempts = event.attempt
        case DeadLetterDiscarded():
            state.discarded = True
    return state


def dump(state: DeadLetter) -> dict[str, Any]:
    """The state as JSON-able data."""
    said = asdict(state)
    del said["id"]
    return said


def load(root: str, data: Any, _: Blueprint | None) -> DeadLetter:
    """The state that `dump` described."""
    return DeadLetter(root, data["attempts"], data["discarded"])


DEAD_LETTER = Decider(
    name="dead_letter",
    commands=(RetryDeadLetter, DiscardDeadLetter),
    events=(DeadLetterRetried, DeadLetterDiscarded),
    initial=DeadLetter,
    decide=decide,
    evolve=evolve,
    dump=dump,
    load=load,
)
