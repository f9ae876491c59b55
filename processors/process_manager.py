"""The loop of the process managers: events in, pure reactions, effects out, the cursor moved.

All managers share it: one lease and one read a partition. Effects are sent before the cursor moves,
so a crash repeats them and never loses them; every receiver makes a repeat harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from aggregates.decider import Blueprint, Reference
from processors.allocation.watch import Watch
from processors.blueprints import Blueprints
from processors.manager_states import Part, Roster, restored, subject
from processors.managers.manager import REFERRING, Effect, reference
from processors.task_sender import TaskSender
from streams.bus import BusUnavailable
from streams.codec import decode_event
from streams.ending import end
from streams.leases import Leases
from streams.log import READ_EVENTS_MAX, Log, LogUnavailable
from streams.message import Event

TOPIC = "managers"
"""The consumer whose cursors these are."""

TICK_S = 0.25  # how exactly timers are kept
RETRY_S = 0.2
SNAPSHOT_EVENTS = 20_000  # so many are folded in a fraction of a second
SNAPSHOT_S = 10.0  # timers begin again where a snapshot left them: so late they may be, at most
HAND_OVER_S = 0.5  # for the last snapshots of a worker that stops; without them timers are later

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class ProcessManager:
    """Runs all managers for the partitions whose leases this process holds."""

    roster: Roster
    log: Log
    sender: TaskSender
    leases: Leases
    partitions: int
    now: Callable[[], float]
    watch: Watch | None = None
    """Looks after agents as long as partitions may be open."""
    positions: dict[int, int] = field(default_factory=dict)
    parts: dict[int, Part] = field(default_factory=dict)
    events: int = 0
    fallbacks: int = 0
    """Snapshots that could not be used."""
    plans: Blueprints = field(init=False)
    _ticking: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.plans = Blueprints(self.log)

    # Opening and closing ------------------------------------------------------------------------

    async def open(self, partition: int) -> None:
        """Restore the states: the snapshots and the events from there on, without their effects."""
        self.sender.partitions = self.partitions
        cursor = self.leases.held[partition]
        names = [subject(manager, partition) for manager in self.roster.managers]
        saved = await self.log.load(TOPIC, names)
        part = await restored(self.roster, partition, cursor.epoch, saved, self.plans, self.now)
        self.fallbacks += part.fallbacks
        until = max(cursor.position, *part.begun)
        while part.position < until:
            limit = min(READ_EVENTS_MAX, until - part.position)
            page = await self.log.read(partition, part.position, limit)
            if not page:  # a database that has lost its end: nothing is done as if it had not
                raise LogUnavailable(f"The log ends at {part.position}, the cursor is at {until}.")
            events = [decode_event(stored.message) for stored in page]
            part.fold(events, await self._found(events), self.now())
        self.parts[partition] = part
        self.positions[partition] = part.position
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick(), name="timers of the managers")
            if self.watch is not None:
                self.watch.start()

    def close(self, partition: int) -> None:
        """Forget a partition that is no longer ours."""
        self.parts.pop(partition, None)
        self.positions.pop(partition, None)

    async def leave(self, partitions: Collection[int]) -> None:
        """Save where partitions that are handed over stand, and forget them."""
        mine = {p: part for p in partitions if (part := self.parts.get(p)) is not None}
        try:
            await self.save([p for p, part in mine.items() if self._changed(part)])
        finally:
            for partition in partitions:
                self.close(partition)

    async def drain(self) -> None:
        """Stop the timers and save where they stand; what is due comes after the next start."""
        await end(self._ticking)
        self._ticking = None
        if self.watch is not None:
            await self.watch.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                await self.save([p for p, part in self.parts.items() if self._changed(part)])

    # Events -------------------------------------------------------------------------------------

    async def handle(self, entries: Mapping[int, Sequence[Event]]) -> None:
        """React to a batch, send what follows, then move the cursors."""
        try:
            await self._handle(entries)
        except LogUnavailable as error:
            logger.warning("managers_wait", error=str(error))
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
            found = await self._found(fresh)
            part.sending = True
            effects += part.react(fresh, found, self.now())
            self.events += len(fresh)
            if self.parts.get(partition) is part:  # else it was opened again meanwhile
                self.positions[partition] = part.position
                moved[partition] = part
        await self._send(effects)
        if moved:
            await self._advance(moved)

    async def _found(self, events: Sequence[Event]) -> dict[Reference, Blueprint]:
        needed = {reference(event) for event in events if event.type in REFERRING}
        return await self.plans.find(needed) if needed else {}

    async def _send(self, effects: Sequence[Effect]) -> None:
        """Send, however long Redis is away: until then nothing more is read."""
        while effects:
            try:
                await self.sender.send(effects)
                return
            except (BusUnavailable, LogUnavailable) as error:
                logger.warning("effects_wait", error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _advance(self, moved: Mapping[int, Part]) -> None:
        for part in moved.values():
            part.sending = False
        moves = [(partition, part.epoch, part.position) for partition, part in moved.items()]
        try:
            ours = await self.log.advance(TOPIC, moves)
        except LogUnavailable as error:  # the next batch moves further
            logger.warning("cursor_waits", error=str(error))
            return
        grown = []
        for partition, part in moved.items():
            cursor = self.leases.held.get(partition)
            if cursor is None or cursor.epoch != part.epoch:
                continue
            if partition not in ours:
                self.leases.forget(partition)
                continue
            cursor.position = part.position  # where to begin if it is opened again
            if part.position - part.saved >= SNAPSHOT_EVENTS:
                grown.append(partition)
        await self.save(grown)

    # Time and snapshots -------------------------------------------------------------------------

    async def save(self, partitions: Sequence[int]) -> None:
        """Save the states of these partitions, where they have nothing left to send."""
        for partition in partitions:
            part, cursor = self.parts.get(partition), self.leases.held.get(partition)
            if part is None or part.sending or cursor is None or cursor.epoch != part.epoch:
                continue
            now, position = self.now(), part.position
            rows = part.rows(now)
            try:
                if await self.log.save(cursor, position, rows):
                    part.saved, part.saved_at = position, now
            except LogUnavailable as error:
                logger.warning("snapshot_waits", error=str(error))
                return

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self.now()
            due: list[Effect] = []
            for partition, part in list(self.parts.items()):
                try:
                    due += part.due(now)
                except Exception:  # a mistake in one partition's timers leaves the others theirs
                    logger.exception("timers_failed", partition=partition)
                    self.close(partition)  # it is opened again, its state as it was saved
            await self._send(due)
            await self.save(self._stale(now))

    def _stale(self, now: float) -> list[int]:
        """The partitions whose timers would be too late from their snapshots, the oldest first.

        A few at a time: a large state takes a tenth of a second, in which nothing else is done.
        """
        stale = [
            part
            for part in self.parts.values()
            if now - part.saved_at >= SNAPSHOT_S and part.waiting()
        ]
        stale.sort(key=lambda part: part.saved_at)
        share = 1 + int(len(self.parts) * TICK_S / SNAPSHOT_S)
        return [part.partition for part in stale[:share]]

    def _changed(self, part: Part) -> bool:
        """Whether a state differs from its snapshot."""
        return part.position != part.saved or part.waiting()


def unseen(events: Sequence[Event], position: int | None) -> Sequence[Event]:
    """The events that follow on `position`; none of a batch that was read for an older taking."""
    if position is None or not events or events[0].position > position + 1:
        return ()
    return events[position + 1 - events[0].position :]
