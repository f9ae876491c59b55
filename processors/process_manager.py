"""The loop of every process manager: events in, the pure reaction, effects out, the cursor moved.

Effects are sent before the cursor moves, so a crash repeats them and never loses them; every
receiver makes a repeat harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from processors.blueprints import Blueprints
from processors.managers.manager import Effect, Manager
from processors.task_sender import TaskSender
from streams.bus import BusUnavailable
from streams.codec import decode_event
from streams.ending import end
from streams.leases import Leases
from streams.log import READ_EVENTS_MAX, Log, LogUnavailable, SnapshotRow
from streams.message import Event

TICK_S = 0.25  # how exactly timers are kept
RETRY_S = 0.2
SNAPSHOT_EVENTS = 20_000

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class ProcessManager:
    """Runs one manager for the partitions whose leases this process holds."""

    manager: Manager[Any]
    log: Log
    sender: TaskSender
    leases: Leases
    partitions: int
    now: Callable[[], float]
    positions: dict[int, int] = field(default_factory=dict)
    states: dict[int, Any] = field(default_factory=dict)
    events: int = 0
    plans: Blueprints = field(init=False)
    _snapshots: dict[int, int] = field(default_factory=dict)
    _ticking: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.plans = Blueprints(self.log)

    async def open(self, partition: int) -> None:
        """Restore the state: the snapshot and the events from there on, without their effects."""
        self.sender.partitions = self.partitions
        cursor = self.leases.held[partition]
        subject = self._subject(partition)
        saved = await self.log.load(self.manager.name, [subject])
        state, position = self.manager.initial(), 0
        if subject in saved:
            data = orjson.loads(saved[subject].state)
            found = await self.plans.find(self.manager.references(data))
            state, position = self.manager.load(data, found, self.now()), cursor.snapshot
        self._snapshots[partition] = position
        while position < cursor.position:
            limit = min(READ_EVENTS_MAX, cursor.position - position)
            page = await self.log.read(partition, position, limit)
            await self._react(state, [decode_event(stored.message) for stored in page])
            position = page[-1].position
        self.states[partition], self.positions[partition] = state, cursor.position
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick(), name=f"{self.manager.name} timers")

    def close(self, partition: int) -> None:
        """Forget a partition that is no longer ours."""
        self.states.pop(partition, None)
        self.positions.pop(partition, None)

    async def drain(self) -> None:
        """Stop the timers; what is due comes after the next start."""
        await end(self._ticking)
        self._ticking = None

    async def handle(self, entries: Mapping[int, Sequence[Event]]) -> None:
        """React to a batch, send what follows, then move the cursors."""
        try:
            await self._handle(entries)
        except LogUnavailable as error:
            logger.warning("manager_waits", manager=self.manager.name, error=str(error))
            for partition in entries:
                self.close(partition)  # it is opened again, and the batch read anew
            await asyncio.sleep(RETRY_S)

    async def _handle(self, entries: Mapping[int, Sequence[Event]]) -> None:
        effects: list[Effect] = []
        moves = []
        for partition, events in entries.items():
            fresh = unseen(events, self.positions.get(partition))
            cursor = self.leases.held.get(partition)
            if not fresh or cursor is None:
                continue
            effects += await self._react(self.states[partition], fresh)
            self.positions[partition] = fresh[-1].position
            self.events += len(fresh)
            moves.append((partition, cursor.epoch, fresh[-1].position))
        await self._send(effects)
        if moves:
            await self._advance(moves)

    async def _react(self, state: Any, events: Sequence[Event]) -> list[Effect]:
        wanted = {r for event in events if (r := self.manager.reference(event)) is not None}
        found = await self.plans.find(wanted) if wanted else {}
        now, effects = self.now(), []
        for event in events:
            reference = self.manager.reference(event) if wanted else None
            blueprint = found.get(reference) if reference else None
            effects += self.manager.react(state, event, blueprint, now)
        return effects

    async def _send(self, effects: Sequence[Effect]) -> None:
        """Send, however long Redis is away: until then nothing more is read."""
        while effects:
            try:
                await self.sender.send(effects)
                return
            except (BusUnavailable, LogUnavailable) as error:
                logger.warning("effects_wait", manager=self.manager.name, error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _advance(self, moves: list[tuple[int, int, int]]) -> None:
        try:
            ours = await self.log.advance(self.manager.name, moves)
        except LogUnavailable as error:  # the next batch moves further
            logger.warning("cursor_waits", manager=self.manager.name, error=str(error))
            return
        for partition, _, position in moves:
            if partition not in ours:
                self.leases.forget(partition)
            elif position - self._snapshots.get(partition, 0) >= SNAPSHOT_EVENTS:
                await self._save(partition, position)

    async def _save(self, partition: int, position: int) -> None:
        state = orjson.dumps(self.manager.dump(self.states[partition]))
        row = SnapshotRow(self._subject(partition), position, state)
        with contextlib.suppress(LogUnavailable, KeyError):
            await self.log.save(self.leases.held[partition], position, [row])
            self._snapshots[partition] = position

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self.now()
            effects = [e for state in self.states.values() for e in self.manager.due(state, now)]
            await self._send(effects)

    def _subject(self, partition: int) -> str:
        return f"{self.manager.name}/{partition}"


def unseen(events: Sequence[Event], position: int | None) -> Sequence[Event]:
    """The events that follow on `position`; none of a batch that was read for an older taking."""
    if position is None or not events or events[0].position > position + 1:
        return ()
    return events[position + 1 - events[0].position :]
