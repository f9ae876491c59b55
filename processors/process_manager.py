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
from streams.log import READ_EVENTS_MAX, Cursor, Log, LogUnavailable, SnapshotRow
from streams.message import Event

TICK_S = 0.25  # how exactly timers are kept
RETRY_S = 0.2
SNAPSHOT_EVENTS = 20_000

logger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Part:
    """One open partition: its state, how far that has come, and under which taking of the lease."""

    state: Any
    position: int
    epoch: int
    snapshot: int


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
    parts: dict[int, Part] = field(default_factory=dict)
    events: int = 0
    plans: Blueprints = field(init=False)
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
            state, position = self.manager.load(data, found, self.now()), saved[subject].version
        snapshot = position
        while position < cursor.position:
            limit = min(READ_EVENTS_MAX, cursor.position - position)
            page = await self.log.read(partition, position, limit)
            await self._react(state, [decode_event(stored.message) for stored in page])
            position = page[-1].position
        self.parts[partition] = Part(state, position, cursor.epoch, snapshot)
        self.positions[partition] = position
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick(), name=f"{self.manager.name} timers")

    def close(self, partition: int) -> None:
        """Forget a partition that is no longer ours."""
        self.parts.pop(partition, None)
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
        moved: dict[int, Part] = {}
        for partition, events in entries.items():
            part = self.parts.get(partition)
            fresh = unseen(events, part.position if part else None)
            if not fresh or part is None:
                continue
            effects += await self._react(part.state, fresh)
            part.position = fresh[-1].position
            self.events += len(fresh)
            if self.parts.get(partition) is part:  # else it was opened again meanwhile
                self.positions[partition] = part.position
                moved[partition] = part
        await self._send(effects)
        if moved:
            await self._advance(moved)

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

    async def _advance(self, moved: Mapping[int, Part]) -> None:
        moves = [(partition, part.epoch, part.position) for partition, part in moved.items()]
        try:
            ours = await self.log.advance(self.manager.name, moves)
        except LogUnavailable as error:  # the next batch moves further
            logger.warning("cursor_waits", manager=self.manager.name, error=str(error))
            return
        for partition, part in moved.items():
            cursor = self.leases.held.get(partition)
            if cursor is None or cursor.epoch != part.epoch:
                continue
            if partition not in ours:
                self.leases.forget(partition)
                continue
            cursor.position = part.position  # where to begin if it is opened again
            if part.position - part.snapshot >= SNAPSHOT_EVENTS:
                await self._save(cursor, part)

    async def _save(self, cursor: Cursor, part: Part) -> None:
        state = orjson.dumps(self.manager.dump(part.state))
        row = SnapshotRow(self._subject(cursor.partition), part.position, state)
        with contextlib.suppress(LogUnavailable):
            if await self.log.save(cursor, part.position, [row]):
                part.snapshot = row.version

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self.now()
            due = [e for part in self.parts.values() for e in self.manager.due(part.state, now)]
            await self._send(due)

    def _subject(self, partition: int) -> str:
        return f"{self.manager.name}/{partition}"


def unseen(events: Sequence[Event], position: int | None) -> Sequence[Event]:
    """The events that follow on `position`; none of a batch that was read for an older taking."""
    if position is None or not events or events[0].position > position + 1:
        return ()
    return events[position + 1 - events[0].position :]
