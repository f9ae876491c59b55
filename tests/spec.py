"""Given, when, then: what was, what is said, what follows; for aggregates and process managers.

    after(start, begin).when(CompleteTask("a", 1, "me")).then(TaskCompleted("a", 1, "me"))
    reacting(DISPATCH).given(*facts).when(fact).then(Ask(...))

`given` takes events, `after` the commands that led there. Nothing here has a clock: time is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from aggregates import DECIDERS
from aggregates.decider import Blueprint, Decider, Reference, fold
from aggregates.execution import EXECUTION
from aggregates.problem import Refused
from processors.managers.manager import REFERRING, Effect, Manager, reference
from processors.vocabulary import Vocabulary
from streams.codec import decode_event, encode_event
from streams.message import Command, Event

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOT = "x"

_NAMES = Vocabulary()
_OWNERS = {kind: decider for decider in DECIDERS for kind in (*decider.commands, *decider.events)}


# Aggregates -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Given:
    """What has happened to an aggregate so far."""

    happened: list[Any]
    root: str = ROOT

    def when(self, command: Any) -> Result:
        """Decide one command on it."""
        decider = _OWNERS[type(command)]
        state = fold(decider, self.root, self.happened)
        try:
            events = decider.decide(state, command, NOW)
        except Refused as refusal:
            return Result(decider, self, [], refusal)
        return Result(decider, self, events)

    @property
    def state(self) -> Any:
        """The state that it all led to."""
        decider = _OWNERS[type(self.happened[0])]
        return fold(decider, self.root, self.happened)


@dataclass(slots=True)
class Result:
    """What a command came to."""

    decider: Decider[Any]
    before: Given
    events: list[Any]
    refusal: Refused | None = None

    def then(self, *events: Any) -> Given:
        """Exactly these events follow; returns what has happened now."""
        assert self.refusal is None, self.refusal
        assert self.events == list(events)
        return self.so()

    def then_kinds(self, *kinds: type[Any]) -> Given:
        """Events of exactly these kinds follow."""
        assert self.refusal is None, self.refusal
        assert [type(event) for event in self.events] == list(kinds)
        return self.so()

    def then_nothing(self) -> Given:
        """The command is accepted and changes nothing."""
        return self.then()

    def refused(self, code: str, pointer: str | None = None) -> Given:
        """The command is refused with this code, and nothing follows."""
        assert self.refusal is not None, f"accepted: {self.events}"
        assert self.refusal.code == code
        if pointer is not None:
            assert self.refusal.pointer == pointer
        return self.before

    def so(self) -> Given:
        """What has happened now, whatever it was."""
        return Given([*self.before.happened, *self.events], self.before.root)


def given(*events: Any) -> Given:
    """These events have happened."""
    return Given(list(events))


def after(*commands: Any, root: str = ROOT) -> Given:
    """These commands were accepted, one after the other."""
    so_far = Given([], root)
    for command in commands:
        result = so_far.when(command)
        assert result.refusal is None, result.refusal
        so_far = result.so()
    return so_far


# Process managers -------------------------------------------------------------------------------


@dataclass(slots=True)
class Reacting:
    """A process manager, what it has seen, and what it was told that a reference means."""

    manager: Manager[Any]
    found: Blueprint | None = None
    state: Any = None
    effects: list[Effect] = field(default_factory=list)
    now: float = 0.0

    def given(self, *events: Event, at: float = 0.0) -> Reacting:
        """It has seen these events, and what followed from them is done."""
        for event in events:
            self._see(event, at)
        return self

    def when(self, *events: Event, at: float = 0.0) -> Reacting:
        """It sees these events now."""
        self.effects = [effect for event in events for effect in self._see(event, at)]
        return self

    def at(self, now: float) -> Reacting:
        """Time has come to `now`."""
        self.now = max(self.now, now)
        self.effects = self.manager.due(self._state(), now)
        return self

    def then(self, *effects: Effect) -> Reacting:
        """Exactly these effects follow."""
        assert self.effects == list(effects)
        return self

    def then_nothing(self) -> Reacting:
        """No effect follows."""
        return self.then()

    def restored(self, now: float = 0.0) -> Reacting:
        """The same after a restart at `now` from a snapshot of the last moment that was named."""
        data = orjson.loads(orjson.dumps(self.manager.dump(self._state(), self.now)))
        known = {} if self.found is None else {_reference(self.found): self.found}
        assert self.manager.references(data) <= known.keys()
        return Reacting(self.manager, self.found, self.manager.load(data, known, now), now=now)

    def _state(self) -> Any:
        if self.state is None:
            self.state = self.manager.initial()
        return self.state

    def _see(self, event: Event, now: float) -> list[Effect]:
        self.now = max(self.now, now)
        if event.type not in self.manager.events:
            return []
        wanted = reference(event) if event.type in REFERRING else None
        found = self.found if self.found and wanted == _reference(self.found) else None
        return self.manager.react(self._state(), event, found, now)


def reacting(manager: Manager[Any], found: Blueprint | None = None) -> Reacting:
    """A process manager that has seen nothing yet."""
    return Reacting(manager, found)


def _reference(found: Blueprint) -> Reference:
    return Reference(found.workflow_id, found.revision)


def facts(
    events: Sequence[Any],
    root: str = ROOT,
    *,
    tenant: str = "default",
    partition: int = 0,
    after: int = 0,
) -> list[Event]:
    """Typed events as a reader of the log gets them: bytes and back, at positions 1, 2, 3 …"""
    owner = _OWNERS.get(type(events[0]), EXECUTION) if events else EXECUTION  # or a refusal
    command = Command("c", "Any", owner.name, root, {}, tenant)
    return [
        decode_event(
            encode_event(
                partition,
                after + place,
                type(event).__name__,
                command.subject,
                place,
                "2026-01-02T03:04:05Z",
                command,
                event,
            )
        )
        for place, event in enumerate(events, 1)
    ]


def rejection(command_id: str, root: str = ROOT, *, after: int = 0) -> Event:
    """That a command was refused, as a reader of the log gets it."""
    [event] = facts([{"command_id": command_id, "code": "NO"}], root, after=after)
    return replace(event, type="CommandRejected")


def typed(event: Event, found: Blueprint | None = None) -> Any:
    """A stored event as its aggregate sees it when the log is folded again."""
    said = _NAMES.event(event)
    if said is not None and _OWNERS[type(said)].reference(said) is not None:
        said._blueprint = found
    return said
