"""The projector: a batch of events into read models, and their cursors, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import structlog

from processors.letter_carrier import LetterCarrier
from processors.process_manager import unseen
from projections.projection import Projection
from streams.leases import Leases
from streams.log import LogUnavailable
from streams.logs.postgres import PostgresLog
from streams.message import Event

TOPIC = "projections"
RETRY_S = 0.5
UNREACHABLE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresConnectionError,
    asyncpg.TransactionRollbackError,
)

# The lease's row decides, and every projection's own row moves with it. It must stand where we
# left it: after a commit whose answer was lost, the same batch is not applied twice. While a new
# projection catches up, the lease's row goes back with it, and those that are ahead stay there.
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
SELECT partition FROM held
"""

logger = structlog.get_logger(__name__)


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

    async def open(self, partition: int) -> None:
        """Read on where the projection that is furthest behind stands."""
        self._recorded[partition] = (await self.log.cursors(TOPIC))[partition].position
        for projection in self.projections:
            cursor = (await self.log.cursors(projection.consumer))[partition]
            self._reached[projection.consumer, partition] = cursor.position
        self.positions[partition] = min(
            self._reached[projection.consumer, partition] for projection in self.projections
        )
        if self.carrier is not None:
            self.carrier.start()

    def close(self, partition: int) -> None:
        """Forget a partition that is no longer ours."""
        self.positions.pop(partition, None)

    async def leave(self, partitions: Collection[int]) -> None:
        """Forget partitions that are handed over; every batch has ended in its own commit."""
        for partition in partitions:
            self.close(partition)

    async def drain(self) -> None:
        """Every batch ends in a commit of its own; nothing is in hand between two."""
        if self.carrier is not None:
            await self.carrier.stop()

    async def handle(self, entries: Mapping[int, Sequence[Event]]) -> None:
        """Apply a batch; where that fails, open its partitions again and read it anew."""
        fresh = {}
        for partition, events in entries.items():
            rest = unseen(events, self.positions.get(partition))
            if rest and partition in self.leases.held:
                fresh[partition] = rest
        if not fresh:
            return
        try:
            await self._apply(fresh)
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
        statements = [
            s for projection in self.projections for s in self._statements(projection, fresh)
        ]
        fence = (
            list(fresh),
            [self.leases.held[p].epoch for p in fresh],
            [events[-1].position for events in fresh.values()],
            TOPIC,
            [projection.consumer for projection in self.projections],
            [self._recorded[p] for p in fresh],
        )
        async with self.log.pool.acquire() as connection, connection.transaction():
            held = {row[0] for row in await connection.fetch(ADVANCE, *fence)}
            if held != fresh.keys():
                raise Moved(f"{sorted(fresh.keys() - held)}")
            for text, arguments in statements:
                await connection.execute(text, *arguments)

    def _statements(
        self, projection: Projection, fresh: Mapping[int, Sequence[Event]]
    ) -> list[tuple[str, tuple[Any, ...]]]:
        events = [
            event
            for partition, batch in fresh.items()
            for event in batch
            if event.position > self._reached[projection.consumer, partition]
            and (not projection.types or event.type in projection.types)
        ]
        return projection.apply(events) if events else []
