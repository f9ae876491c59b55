"""The projector: a batch of events into read models, and their cursors, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from processors.letter_carrier import LetterCarrier
from processors.parking import KNOWN, UNREACHABLE, ParkedKeys, is_content
from processors.process_manager import unseen
from projections.projection import Projection
from streams.ending import end
from streams.leases import Leases
from streams.log import LogUnavailable
from streams.logs.postgres import PostgresLog
from streams.message import Event

TOPIC = "projections"
RETRY_S = 0.5
LOOK_S = 1.0  # how soon a decision about a parked key is seen

# The lease's row decides, and every projection's own row moves with it. It must stand where we
# left it: after a commit whose answer was lost, the same batch is not applied twice. While a new
# projection catches up, the lease's row goes back with it, and those that are ahead stay there.
# Nobody waits for the disk here, and commits of the log not for it either: rows and cursors that a
# crash of the server takes back are taken back together, and made from the log again.
ADVANCE = """
WITH moved AS (
    SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[], $6::bigint[])
        AS m(partition, epoch, position, before)
), locked AS MATERIALIZED (
    SELECT c.partition FROM cursors AS c JOIN moved USING (partition)
    WHERE c.consumer = $4 AND c.epoch = moved.epoch ORDER BY c.partition FOR UPDATE OF c
), held AS (
    UPDATE cursors AS c SET position = moved.position, beat = c.beat + 1
    FROM moved JOIN locked USING (partition)
    WHERE c.consumer = $4 AND c.partition = moved.partition AND c.epoch = moved.epoch
      AND c.position = moved.before AND c.owner IS NOT NULL
    RETURNING c.partition, c.position
), followed AS (
    UPDATE cursors AS c SET position = greatest(c.position, held.position)
    FROM held WHERE c.consumer = ANY($5::text[]) AND c.partition = held.partition
)
SELECT partition, set_config('synchronous_commit', $7, true) FROM held
"""

FENCE = """
SELECT count(*) FROM (
    SELECT 1 FROM cursors WHERE consumer = $1 AND partition = $2 AND epoch = $3 AND position = $4
    AND owner IS NOT NULL FOR UPDATE
) AS held
"""
"""Hold the lease's row where we left it, while a parked key is caught up."""

logger = structlog.get_logger(__name__)


class UnknownEvents(Exception):
    """A newer version of the code has written events of types that this one does not know."""


class Moved(Exception):
    """A partition's cursor is not where we left it; nothing of the batch was written."""


@dataclass(slots=True)
class Projector:
    """Keeps the read models of the partitions whose leases this process holds."""

    projections: Sequence[Projection]
    log: PostgresLog
    leases: Leases
    partitions: int
    positions: dict[int, int] = field(default_factory=dict)
    carrier: LetterCarrier | None = None
    """Whom it starts with its first partition: decisions on dead letters are rows of its own."""
    events: int = 0
    _recorded: dict[int, int] = field(default_factory=dict)
    _reached: dict[tuple[str, int], int] = field(default_factory=dict)
    parked: ParkedKeys = field(init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _looking: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.parked = ParkedKeys(self.log)

    @property
    def consumers(self) -> list[str]:
        """The names under which the read models' cursors are kept."""
        return [projection.consumer for projection in self.projections]

    async def open(self, partition: int) -> None:
        """Read on where the projection that is furthest behind stands."""
        self._recorded[partition] = (await self.log.cursors(TOPIC))[partition].position
        for projection in self.projections:
            cursor = (await self.log.cursors(projection.consumer))[partition]
            self._reached[projection.consumer, partition] = cursor.position
        self.positions[partition] = min(
            self._reached[projection.consumer, partition] for projection in self.projections
        )
        await self.parked.load(self.consumers, partition)
        if self.carrier is not None:
            self.carrier.start()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="parked keys")

    def close(self, partition: int) -> None:
        """Forget a partition that is no longer ours."""
        self.positions.pop(partition, None)

    async def leave(self, partitions: Collection[int]) -> None:
        """Forget partitions that are handed over; every batch has ended in its own commit."""
        for partition in partitions:
            self.close(partition)

    async def drain(self) -> None:
        """Every batch ends in a commit of its own; nothing is in hand between two."""
        await end(self._looking)
        self._looking = None
        if self.carrier is not None:
            await self.carrier.stop()

    async def handle(self, entries: Mapping[int, Sequence[Event]]) -> None:
        """Apply a batch; where that fails, open its partitions again and read it anew."""
        async with self._turn:
            await self._handle(entries)

    async def _handle(self, entries: Mapping[int, Sequence[Event]]) -> None:
        fresh = {}
        for partition, events in entries.items():
            rest = unseen(events, self.positions.get(partition))
            if rest and partition in self.leases.held:
                fresh[partition] = rest
        if not fresh:
            return
        try:
            try:
                await self._apply(fresh)
            except (Moved, LogUnavailable):
                raise
            except Exception as error:
                if not is_content(error):
                    raise
                await self._apply_carefully(fresh, error)
        except (Moved, LogUnavailable, *UNREACHABLE) as error:
            logger.warning("projection_waits", error=repr(error)[:200])
            for partition in fresh:
                self.close(partition)
            await asyncio.sleep(RETRY_S)
            return
        for partition, events in fresh.items():
            self.positions[partition] = self._recorded[partition] = events[-1].position
            self.events += len(events)
            for projection in self.projections:
                key = (projection.consumer, partition)
                self._reached[key] = max(self._reached[key], events[-1].position)

    async def _apply(self, fresh: Mapping[int, Sequence[Event]]) -> None:
        # All of it is taken before the first wait: a lease may be lost and come back meanwhile.
        for events in fresh.values():
            if not {event.type for event in events} <= KNOWN:
                raise UnknownEvents
        statements = [
            s
            for projection in self.projections
            if (events := self._wanted(projection, fresh))
            for s in projection.apply(events)
        ]
        async with self._moving(fresh, "off") as connection:
            for text, arguments in statements:
                await connection.execute(text, *arguments)

    async def _apply_carefully(
        self, fresh: Mapping[int, Sequence[Event]], error: Exception
    ) -> None:
        """Something in the batch cannot be applied: find it, park it, and apply the rest."""
        logger.warning("projection_careful", error=repr(error)[:300])
        failures = {}
        foreign = {event.type for events in fresh.values() for event in events} - KNOWN
        async with self._moving(fresh) as connection:
            for projection in self.projections:
                events = self._wanted(projection, fresh, foreign)
                failures[projection.consumer] = await self.parked.apply(
                    connection, projection, events
                )
        for consumer, some in failures.items():
            self.parked.note(consumer, some)

    @asynccontextmanager
    async def _moving(
        self, fresh: Mapping[int, Sequence[Event]], synchronous: str = "on"
    ) -> AsyncIterator[Any]:
        """A transaction that moves the cursors, or raises Moved; `synchronous` as PostgreSQL's."""
        fence = (
            list(fresh),
            [self.leases.held[p].epoch for p in fresh],
            [events[-1].position for events in fresh.values()],
            TOPIC,
            self.consumers,
            [self._recorded[p] for p in fresh],
            synchronous,
        )
        async with self.log.pool.acquire() as connection, connection.transaction():
            held = {row[0] for row in await connection.fetch(ADVANCE, *fence)}
            if held != fresh.keys():
                raise Moved(f"{sorted(fresh.keys() - held)}")
            yield connection

    def _wanted(
        self,
        projection: Projection,
        fresh: Mapping[int, Sequence[Event]],
        foreign: Container[str] = frozenset(),
    ) -> Sequence[Event]:
        """The events that are new to a read model, of the types that it takes, or is to refuse."""
        types = projection.types
        events = [
            event
            for partition, batch in fresh.items()
            for event in batch
            if event.position > self._reached[projection.consumer, partition]
            and (not types or event.type in types or event.type in foreign)
        ]
        return self.parked.passed(projection.consumer, events)

    # Parked keys ---------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.follow_again()
            except (Moved, LogUnavailable, *UNREACHABLE) as error:
                logger.warning("parked_keys_wait", error=repr(error)[:200])
            except Exception:  # a bug in one key's going on leaves the others theirs
                logger.exception("parked_keys_failed")

    async def follow_again(self) -> int:
        """Do what was decided about parked keys of our partitions; returns for how many."""
        by_name = {projection.consumer: projection for projection in self.projections}
        done = 0
        for key in await self.parked.wanted(list(by_name), list(self.positions)):
            async with self._turn:
                cursor = self.leases.held.get(key.partition)
                if cursor is None or key.partition not in self.positions:
                    continue
                until = self._reached[key.consumer, key.partition]
                fence = (TOPIC, key.partition, cursor.epoch, self._recorded[key.partition])
                async with self.log.pool.acquire() as connection, connection.transaction():
                    if not await connection.fetchval(FENCE, *fence):
                        raise Moved(f"[{key.partition}]")
                    projection = by_name[key.consumer]
                    failure = await self.parked.catch_up(connection, projection, key, until)
                self.parked.caught_up(key, failure)
                done += 1
        return done
