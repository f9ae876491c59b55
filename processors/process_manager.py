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
from aggregates.problem import bounded
from processors.allocation.watch import Watch
from processors.blueprints import Blueprints
from processors.manager_states import Part, Roster, Unhandled, restored, subject
from processors.managers.manager import REFERRING, Effect, reference
from processors.parking import AGGREGATES, KNOWN
from processors.task_sender import TaskSender
from streams.bus import BusUnavailable
from streams.codec import decode_event
from streams.ending import end
from streams.leases import Leases
from streams.log import READ_EVENTS_MAX, DeadLetter, Log, LogUnavailable, ParkedKey
from streams.message import Event

TOPIC = "managers"
"""The consumer whose cursors these are."""

LOOK_S = 1.0  # how soon a decision about a parked key is seen
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
    _unmoved: dict[int, tuple[Part, int]] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _looked: float = 0.0

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
        names = [manager.name for manager in self.roster.managers]
        for key in await self.log.parked(names, partition):
            part.parked[key.consumer, key.subject] = key.position
        until = max(cursor.position, *part.begun)
        while part.position < until:
            limit = min(READ_EVENTS_MAX, until - part.position)
            page = await self.log.read(partition, part.position, limit)
            if not page:  # a database that has lost its end: nothing is done as if it had not
                raise LogUnavailable(f"The log ends at {part.position}, the cursor is at {until}.")
            events = [decode_event(stored.message) for stored in page]
            try:
                part.fold(events, await self._found(events), self.now())
            except Unhandled as error:  # it was well once: the code has changed since
                await self._park(error)
                raise LogUnavailable(f"{partition} is to be opened again: {error}") from error
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
            await self.move_cursors()
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
                await self.move_cursors()
                await self.save([p for p, part in self.parts.items() if self._changed(part)])

    # Events -------------------------------------------------------------------------------------

    async def handle(self, entries: Mapping[int, Sequence[Event]]) -> None:
        """React to a batch, send what follows, then move the cursors."""
        try:
            async with self._turn:
                await self._handle(entries)
        except Unhandled as error:
            for partition in entries:
                self.close(partition)  # the state is read anew, and the key passed over
            with contextlib.suppress(LogUnavailable):
                await self._park(error)
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
            self._check(part, fresh)
            part.sending = True
            effects += part.react(fresh, found, self.now())
            self.events += len(fresh)
            if self.parts.get(partition) is part:  # else it was opened again meanwhile
                self.positions[partition] = part.position
                moved[partition] = part
        await self._send(effects)
        for partition, part in moved.items():
            part.sending = False
            self._unmoved[partition] = (part, part.position)  # the next tick moves all at once
        await self.save(
            [p for p, part in moved.items() if part.position - part.saved >= SNAPSHOT_EVENTS]
        )

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

    async def move_cursors(self) -> None:
        """Move the cursors to what was handled and sent: once a tick, not once a batch.

        What is handled and sent meanwhile is done again by whoever goes on after a crash.
        """
        moved = {
            p: (part, at) for p, (part, at) in self._unmoved.items() if self.parts.get(p) is part
        }
        self._unmoved = {}
        if not moved:
            return
        moves = [(partition, part.epoch, at) for partition, (part, at) in moved.items()]
        try:
            ours = await self.log.advance(TOPIC, moves)
        except LogUnavailable as error:  # the next tick moves further
            logger.warning("cursor_waits", error=str(error))
            self._unmoved = moved | self._unmoved
            return
        for partition, (part, at) in moved.items():
            cursor = self.leases.held.get(partition)
            if cursor is None or cursor.epoch != part.epoch:
                continue
            if partition not in ours:
                self.leases.forget(partition)
            else:
                cursor.position = at  # where to begin if it is opened again

    # Parked keys --------------------------------------------------------------------------------

    def _check(self, part: Part, events: Sequence[Event]) -> None:
        """Old code stops at an event that it does not know, for that aggregate; raises Unhandled.

        Whatever a newer version does about it: none of our managers hears more of the aggregate.
        """
        foreign = {event.type for event in events} - KNOWN
        for event in events if foreign else ():
            if event.type in foreign and event.aggregate in AGGREGATES:
                for manager in self.roster.managers:
                    follows = not manager.events.isdisjoint(AGGREGATES[event.aggregate])
                    if follows and not part.passes(manager.name, event):
                        raise Unhandled(manager.name, event, "UNKNOWN_EVENT; upgrade this worker.")

    async def _park(self, error: Unhandled) -> None:
        """Have a manager pass over the event's subject from now on; the event is a dead letter."""
        event = error.event
        logger.error("key_parked", consumer=error.manager, subject=event.subject, reason=str(error))
        found = await self.log.read(event.partition, event.position - 1, 1)
        letter = DeadLetter(
            "event",
            error.manager,
            f"{event.partition}-{event.position}",
            bounded(f"{event.type} cannot be handled: {error.reason}"),
            found[0].message if found else b"",
            event.tenant,
            event.subject,
        )
        key = ParkedKey(error.manager, event.partition, event.subject, event.position)
        await self.log.park(key, letter)

    async def _look(self) -> None:
        """Do what people have decided about parked keys; an outage is waited for."""
        for partition in [p for p, part in self.parts.items() if part.parked]:
            try:
                async with self._turn:
                    await self._follow_again(partition)
            except Unhandled as error:
                self.close(partition)
                with contextlib.suppress(LogUnavailable):
                    await self._park(error)
            except LogUnavailable as error:
                logger.warning("parked_keys_wait", error=str(error))
                self.close(partition)  # its state may have what its snapshot has not

    async def _follow_again(self, partition: int) -> None:
        names = [manager.name for manager in self.roster.managers]
        for key in await self.log.parked(names, partition):
            part, cursor = self.parts.get(partition), self.leases.held.get(partition)
            if part is None or part.sending or cursor is None or cursor.epoch != part.epoch:
                return
            if key.wanted is None:
                continue
            part.parked.pop((key.consumer, key.subject), None)
            after = key.position - (key.wanted == "retry")
            effects: list[Effect] = []
            while page := await self.log.history(partition, key.subject, after, READ_EVENTS_MAX):
                events = [decode_event(one.message) for one in page]
                events = [event for event in events if event.position <= part.position]
                effects += part.again(key.consumer, events, await self._found(events), self.now())
                after = page[-1].position
                if len(page) < READ_EVENTS_MAX:
                    break
            await self._send(effects)
            now = self.now()
            if not await self.log.unpark(cursor, part.position, part.rows(now), key):
                self.close(partition)
                return
            part.saved, part.saved_at = part.position, now
            logger.info("key_followed_again", consumer=key.consumer, subject=key.subject)

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
            await self.move_cursors()
            await self.save(self._stale(now))
            if now - self._looked >= LOOK_S:
                self._looked = now
                await self._look()

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
