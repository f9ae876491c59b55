"""What every feed does with its leases: open what was taken, close what was lost."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from streams.bus import BusUnavailable
from streams.leases import Leases
from streams.log import Log, LogUnavailable

PAUSE_S = 0.2  # after Redis or Postgres did not answer

logger = structlog.get_logger(__name__)


class Worker(Protocol):
    """What works on the partitions that a feed holds."""

    leases: Leases
    partitions: int

    @property
    def log(self) -> Log:
        """The log, opened by the feed."""

    async def open(self, partition: int) -> None:
        """Make ready for a partition whose lease was just taken."""

    def close(self, partition: int) -> None:
        """Forget a partition that is no longer ours."""

    async def drain(self) -> None:
        """Finish what is in hand."""


class LeasedFeed:
    """The lease-keeping half of a feed; a subclass reads."""

    def __init__(self, topic: str, worker: Worker) -> None:
        self.topic = topic
        self.worker = worker
        self.owned: frozenset[int] = frozenset()

    @property
    def partitions(self) -> int:
        """How many partitions there are, held or not."""
        return self.worker.partitions

    async def start(self) -> None:
        """Connect, and take the first leases."""
        await self.worker.log.open()
        self.worker.partitions = await self.worker.log.partitions()
        await self.worker.leases.start()

    async def stop(self) -> None:
        """Finish what is in hand and hand the leases over."""
        await self.worker.drain()
        await self.worker.leases.stop()

    def opened(self, partition: int) -> None:
        """A partition can be read from now on."""

    async def assignment(self) -> frozenset[int]:
        """Open what was taken, close what was lost, and say what is owned now."""
        leases = self.worker.leases
        while True:
            held = frozenset(leases.held)
            lost = self.owned - held
            for partition in lost:
                self.worker.close(partition)
            opened = [p for p in sorted(held - self.owned) if await self._open(p)]
            if lost or opened:
                self.owned = (self.owned & frozenset(leases.held)) | frozenset(opened)
                return self.owned
            if held == self.owned:
                await leases.changed()
            else:
                await asyncio.sleep(PAUSE_S)

    async def _open(self, partition: int) -> bool:
        try:
            await self.worker.open(partition)
        except (BusUnavailable, LogUnavailable, KeyError) as error:
            logger.warning(
                "partition_not_opened", topic=self.topic, partition=partition, error=repr(error)
            )
            return False
        self.opened(partition)
        return True
