"""The shape of every process manager: react (event -> effects), due (time -> effects), state.

Pure like a decider. Its state is a fold over the log, restored from a snapshot and the events after
it; timers are part of the state, so they survive anything. `now` is in seconds on the caller's
clock; only differences count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aggregates.decider import Blueprint, Reference
from processors.agents.wire import Assignment
from streams.message import Command, Event

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Ask:
    """Give a task to whoever serves its role."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Recheck:
    """Ask again if the task is no longer on its way: its stream was lost, or the answer was."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Send:
    """Give a command; its id is derived from the event that caused it."""

    command: Command


Effect = Ask | Recheck | Send


@dataclass(frozen=True, slots=True)
class Manager(Generic[S]):
    """One process manager: its name (also its consumer's) and its pure functions."""

    name: str
    initial: Callable[[], S]
    react: Callable[[S, Event, Blueprint | None, float], list[Effect]]
    due: Callable[[S, float], list[Effect]]
    reference: Callable[[Event], Reference | None]
    """Which workflow revision an event needs attached before `react`."""
    dump: Callable[[S], Any]
    references: Callable[[Any], set[Reference]]
    """Which revisions a dump needs attached before `load`."""
    load: Callable[[Any, dict[Reference, Blueprint], float], S]
