"""Which partitions a consumer holds here, kept by beating and taken over when another's beat stops.

No clock is compared with another machine's: a challenger that has seen the same (epoch, beat) for
the lease time on its own monotonic clock raises the epoch by compare-and-set.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from streams.ending import end
from streams.log import Cursor, Log, LogUnavailable

LEASE_S_DEFAULT = 5.0
BEATS_A_LEASE = 3  # two beats may be lost before the third is too late

logger = structlog.get_logger(__name__)


class Leases:
    """One consumer's leases in this process; `held` maps a partition to its cursor."""

    def __init__(
        self,
        log: Log,
        consumer: str,
        owner: str,
        lease_s: float = LEASE_S_DEFAULT,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.log = log
        self.consumer = consumer
        self.owner = owner
        self.lease_s = lease_s
        self.held: dict[int, Cursor] = {}
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._seen: dict[int, tuple[int, int, float]] = {}
        self._lost: set[int] = set()  # and nobody has looked at `held` since
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take what is free and keep beating."""
        await self.round()
        self._task = asyncio.create_task(self._beat_for_ever(), name=f"leases {self.consumer}")

    async def stop(self) -> None:
        """Hand everything back at once."""
        await end(self._task)
        if self.held:
            with contextlib.suppress(LogUnavailable):
                await self.log.release(self.consumer, self._epochs())
        self.held.clear()
        self._changed.set()

    async def changed(self) -> None:
        """Wait until partitions were taken or lost; look at `held` before waiting for anything."""
        await self._changed.wait()
        self._changed.clear()
        self._lost.clear()

    def forget(self, partition: int) -> None:
        """A write was refused: the partition belongs to somebody else now."""
        if self.held.pop(partition, None) is not None:
            logger.warning("lease_lost", consumer=self.consumer, partition=partition)
            self._lost.add(partition)
            self._changed.set()

    async def retake(self, partition: int) -> Cursor | None:
        """Raise the epoch of our own lease, which ends whatever of ours is still on its way.

        Returns the fresh cursor, or None where the partition is no longer ours.
        """
        mine = self.held.get(partition)
        rows = await self.log.cursors(self.consumer)
        now = next(row for row in rows if row.partition == partition)
        if mine is None or now.owner != self.owner or now.epoch != mine.epoch:
            self.forget(partition)
            return None
        # A beat of our own may come between; it is harmless to try again.
        for _ in range(BEATS_A_LEASE):
            if taken := await self.log.take([now], self.owner):
                self.held[partition] = taken[0]
                return taken[0]
            rows = await self.log.cursors(self.consumer)
            now = next(row for row in rows if row.partition == partition)
            if now.owner != self.owner:
                break
        self.forget(partition)
        return None

    def _epochs(self) -> dict[int, int]:
        return {partition: cursor.epoch for partition, cursor in self.held.items()}

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.lease_s / BEATS_A_LEASE)
            try:
                await self.round()
            except LogUnavailable as error:
                logger.warning("leases_unavailable", consumer=self.consumer, error=str(error))

    async def round(self) -> None:
        """Beat for what we hold, look at the others, take what is free or has stopped beating."""
        before = self._epochs()
        ours = await self.log.beat(self.consumer, before) if before else set()
        for partition, epoch in before.items():
            cursor = self.held.get(partition)
            if partition not in ours and cursor is not None and cursor.epoch == epoch:
                self.forget(partition)
        now = self._clock()
        free = []
        for cursor in await self.log.cursors(self.consumer):
            # What was lost comes back only after it was seen to be lost: whoever works on it must
            # drop what it has, since others have written meanwhile.
            if cursor.partition in self.held or cursor.partition in self._lost:
                continue
            epoch, beat, since = self._seen.get(cursor.partition, (-1, -1, now))
            if (epoch, beat) != (cursor.epoch, cursor.beat):
                self._seen[cursor.partition] = (cursor.epoch, cursor.beat, now)
                since = now
            if cursor.owner is None or now - since >= self.lease_s:
                free.append(cursor)
        if free:
            for cursor in await self.log.take(free, self.owner):
                self.held[cursor.partition] = cursor
                self._seen.pop(cursor.partition, None)
            self._changed.set()
