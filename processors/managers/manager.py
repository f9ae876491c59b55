"""The shape of every process manager: react (event -> effects), due (time -> effects), state.

Pure like a decider. Its state is a fold over the log, restored from a snapshot and the events after
it; timers are part of the state, so they survive anything. `now` is in seconds on the caller's
clock; only differences count, and dumps hold how many seconds remain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aggregates.decider import Blueprint, Reference
from processors.agents.wire import Assignment
from processors.allocation.need import Need
from streams.message import Command, Event

S = TypeVar("S")

REFERRING = frozenset({"ExecutionStarted", "ExecutionRetried"})
"""The events that come to `react` with the workflow revision that they name."""


@dataclass(slots=True)
class Ask:
    """Give a task to whoever serves its role; where there is a need, to an agent that is chosen."""

    assignment: Assignment
    need: Need | None = None


@dataclass(slots=True)
class Recheck:
    """Ask again if the task is no longer on its way: its stream was lost, or the answer was."""

    assignment: Assignment
    need: Need | None = None


@dataclass(slots=True)
class Settled:
    """A task for which an agent was chosen is over: the agent has room for another one."""

    assignment: Assignment


@dataclass(slots=True)
class Withdraw:
    """Tell whoever has the task that its answer is not wanted any more; it may never arrive."""

    assignment: Assignment


@dataclass(slots=True)
class Send:
    """Give a command; its id is derived from the event that caused it."""

    command: Command


@dataclass(slots=True)
class OnTrial:
    """Give a command to an agent whose circuit is half-open; for any other it says nothing new."""

    command: Command


Effect = Ask | Recheck | Settled | Withdraw | Send | OnTrial


def reference(event: Event) -> Reference:
    """The workflow revision that one of the REFERRING events names."""
    return Reference(event.data["workflow_id"], event.data["revision"])


def _none(_: Any) -> set[Reference]:
    return set()


@dataclass(frozen=True, slots=True)
class Manager(Generic[S]):
    """One process manager: its name, the types of the events that it wants, its pure functions."""

    name: str
    events: frozenset[str]
    initial: Callable[[], S]
    react: Callable[[S, Event, Blueprint | None, float], list[Effect]]
    due: Callable[[S, float], list[Effect]]
    waiting: Callable[[S], bool]
    """Whether `due` may ever return anything: then snapshots are kept young."""
    dump: Callable[[S, float], Any]
    load: Callable[[Any, dict[Reference, Blueprint], float], S]
    references: Callable[[Any], set[Reference]] = _none
    """Which revisions a dump needs attached before `load`."""
    version: int = 1
    """Of what `dump` returns: a snapshot of another version is not loaded, but folded anew."""
