"""The smallest aggregate, for tests of what surrounds it: all numbers that were added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aggregates.decider import Decider
from aggregates.problem import Refused
from processors.commands import command
from streams.message import Command

BREAKING = 1_000


@dataclass(slots=True)
class Add:
    """Add a number; 0 is refused, -1 crashes, below that the events cannot be encoded.

    A number above BREAKING is added, and then breaks the state, half changed.
    """

    number: int
    text: str = ""


@dataclass(slots=True)
class Added:
    """A number was added."""

    number: int
    text: str


def _decide(state: list[int], said: Any, now: Any) -> list[Any]:
    if said.number == -1:
        raise ZeroDivisionError("a bug")
    if said.number < -1:
        return [Added(-said.number, ""), Added(said.number, object())]  # type: ignore[arg-type]
    if said.number == 0:
        raise Refused("NOTHING", "Nothing is added.")
    return [Added(said.number, said.text)]


def _evolve(state: list[int], event: Added) -> list[int]:
    state.append(event.number)
    if event.number > BREAKING:
        raise ZeroDivisionError("a bug")
    return state


TALLY: Decider[list[int]] = Decider(
    name="tally",
    commands=(Add,),
    events=(Added,),
    initial=lambda _: [],
    decide=_decide,
    evolve=_evolve,
    dump=list,
    load=lambda _, data, __: list(data),
)


def add(number: int, root: str = "t", text: str = "") -> Command:
    """A command whose outcome somebody waits for."""
    made = command("tally", root, "Add", {"number": number, "text": text})
    made.reply_to = "replies:me"
    return made
