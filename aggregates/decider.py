"""The one shape of every aggregate: decide (command -> events), evolve (event -> state), initial.

`decide` only reads the state; `evolve` never fails and may change the state in place, since exactly
one owner holds it. Time and ids arrive inside the command or as `now`, so that replaying the log
gives the same state on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from aggregates.plan import Plan

S = TypeVar("S")


class Blueprint(NamedTuple):
    """One immutable revision of a workflow, as the shell attaches it to what refers to it."""

    workflow_id: str
    revision: int
    digest: str
    tenant: str
    archived: bool
    plan: Plan


class Reference(NamedTuple):
    """Which revision of which workflow something refers to; revision 0 is the newest."""

    workflow_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class Decider(Generic[S]):
    """One aggregate: its name, its vocabulary, and its pure functions.

    `dump` and `load` turn a state into JSON-able data for a snapshot and back. What refers to a
    workflow by id (a command, an event, dumped data) gets that workflow's blueprint attached by the
    shell before it is decided, folded or loaded; `reference` says which one.
    """

    name: str
    commands: tuple[type, ...]
    events: tuple[type, ...]
    initial: Callable[[str], S]
    decide: Callable[[S, Any, datetime], list[Any]]
    evolve: Callable[[S, Any], S]
    dump: Callable[[S], Any]
    load: Callable[[str, Any, Blueprint | None], S]
    reference: Callable[[Any], Reference | None] = lambda _: None
    snapshot: int = 1
    """Of the shape that `dump` returns: a saved state of another one is folded from the log."""

    @property
    def form(self) -> str:
        """What saved states are marked with."""
        return f"{self.name}@{self.snapshot}"


def fold(decider: Decider[S], root: str, events: Iterable[Any], state: S | None = None) -> S:
    """The state of the aggregate `root` after `events`, from `state` on or from nothing."""
    current = decider.initial(root) if state is None else state
    for event in events:
        current = decider.evolve(current, event)
    return current
