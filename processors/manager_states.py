"""What process managers remember of one partition: moved on by events and time, saved, restored.

The managers of a partition go through its log together, so one position and one snapshot stand for
all of them; a manager that is new here, or whose snapshot cannot be used, is folded from the
beginning while the others wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from aggregates.decider import Blueprint, Reference
from processors.blueprints import Blueprints
from processors.managers.manager import REFERRING, Effect, Manager, reference
from processors.saved import Unusable, seal, unseal
from streams.log import SnapshotRow
from streams.message import Event

Found = Mapping[Reference, Blueprint]

logger = structlog.get_logger(__name__)


class Unhandled(Exception):
    """A manager could not react to an event; its state may be half changed."""

    def __init__(self, manager: str, event: Event, reason: str) -> None:
        self.manager, self.event, self.reason = manager, event, reason
        super().__init__(f"{manager}: {event.type} of {event.subject}: {reason}")


class Roster:
    """The managers that run together, and which of them want which type of event."""

    def __init__(self, managers: Sequence[Manager[Any]]) -> None:
        self.managers = tuple(managers)
        self.wanting: dict[str, tuple[int, ...]] = {
            kind: tuple(n for n, manager in enumerate(managers) if kind in manager.events)
            for kind in frozenset[str]().union(*(manager.events for manager in managers))
        }


@dataclass(slots=True, eq=False)
class Part:
    """One open partition: a state a manager, how far they have come, under which lease's epoch."""

    partition: int
    roster: Roster
    states: list[Any]
    position: int
    epoch: int
    begun: list[int] = field(default_factory=list)
    """Where each manager's state stood when it was restored: it has seen what is up to there."""
    saved: int = 0
    saved_at: float = 0.0
    sending: bool = False
    """What follows from the events up to `position` is not all sent: no time for a snapshot."""
    fallbacks: int = 0
    """Snapshots that could not be used."""
    parked: dict[tuple[str, str], int] = field(default_factory=dict)
    """By manager and subject: from which position on its events are passed over."""

    def fold(self, events: Sequence[Event], found: Found, now: float) -> None:
        """Take in what was handled before; its effects are done."""
        for event in events:
            for place in self.roster.wanting.get(event.type, ()):
                if event.position > self.begun[place]:
                    self._react(place, event, found, now)
            self.position = event.position

    def react(self, events: Sequence[Event], found: Found, now: float) -> list[Effect]:
        """Take in new events; what follows is to be sent."""
        effects: list[Effect] = []
        wanting = self.roster.wanting
        for event in events:
            for place in wanting.get(event.type, ()):
                effects += self._react(place, event, found, now)
        self.position = events[-1].position
        return effects

    def _react(self, place: int, event: Event, found: Found, now: float) -> list[Effect]:
        """One manager and one event: the one place where `react` is called.

        What it raises is about this manager and this event's subject and about nothing else, but
        the state is half changed then: it is to be read anew, with that key parked.
        """
        manager = self.roster.managers[place]
        if self.parked and self.passes(manager.name, event):
            return []
        blueprint = found.get(reference(event)) if event.type in REFERRING else None
        try:
            return manager.react(self.states[place], event, blueprint, now)
        except Exception as error:
            raise Unhandled(manager.name, event, f"{type(error).__name__}: {error}") from error

    def passes(self, manager: str, event: Event) -> bool:
        """Whether a manager passes over an event, since its subject is parked."""
        since = self.parked.get((manager, event.subject))
        return since is not None and event.position >= since

    def again(self, name: str, events: Sequence[Event], found: Found, now: float) -> list[Effect]:
        """What one manager has missed of a subject that was parked; raises Unhandled."""
        effects: list[Effect] = []
        place = next(n for n, manager in enumerate(self.roster.managers) if manager.name == name)
        for event in events:
            if place in self.roster.wanting.get(event.type, ()):
                effects += self._react(place, event, found, now)
        return effects

    def due(self, now: float) -> list[Effect]:
        """What the passing of time makes necessary."""
        return [
            effect
            for manager, state in zip(self.roster.managers, self.states, strict=True)
            for effect in manager.due(state, now)
        ]

    def waiting(self) -> bool:
        """Whether time alone can make anything necessary."""
        pairs = zip(self.roster.managers, self.states, strict=True)
        return any(manager.waiting(state) for manager, state in pairs)

    def rows(self, now: float) -> list[SnapshotRow]:
        """The states as they are now, to be saved."""
        return [
            seal(
                subject(manager, self.partition),
                self.position,
                form(manager),
                manager.dump(state, now),
            )
            for manager, state in zip(self.roster.managers, self.states, strict=True)
        ]


def subject(manager: Manager[Any], partition: int) -> str:
    """The name of a manager's snapshot."""
    return f"{manager.name}/{partition}"


def form(manager: Manager[Any]) -> str:
    """Whose state it is, and in which version of its shape."""
    return f"{manager.name}/{manager.version}"


async def restored(
    roster: Roster,
    partition: int,
    epoch: int,
    saved: Mapping[str, SnapshotRow],
    plans: Blueprints,
    now: Callable[[], float],
) -> Part:
    """Each manager where its snapshot stands, or at the beginning; `saved` is by subject."""
    part = Part(partition, roster, [m.initial() for m in roster.managers], 0, epoch)
    part.begun = [0] * len(roster.managers)
    usable: dict[int, Any] = {}
    needed: set[Reference] = set()
    for place, manager in enumerate(roster.managers):
        if row := saved.get(subject(manager, partition)):
            try:
                usable[place] = unseal(row, form(manager)).state
            except Unusable as error:
                part.fallbacks += 1
                logger.warning("snapshot_not_used", subject=row.subject, error=str(error))
                continue
            needed |= manager.references(usable[place])
            part.begun[place] = row.version
    found = await plans.find(needed) if needed else {}
    for place, data in usable.items():
        part.states[place] = roster.managers[place].load(data, found, now())
    part.position = part.saved = min(part.begun)
    part.saved_at = now()
    return part
