"""What every feed does with its leases: open what was taken, close what was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

import structlog

from streams.bus import BusUnavailable
from streams.leases import Leases
from streams.log import Log, LogUnavailable

PAUSE_S = 0.2  # after Redis or Postgres did not answer
HAND_OVER_S = 1.0  # for what is in hand; whoever takes over does the rest again
OPEN_S = 0.1  # what was opened in this time is worked on while the rest is opened

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

    async def leave(self, partitions: Collection[int]) -> None:
        """Finish and save what is to be for partitions that are handed over, and forget them."""

    async def drain(self) -> None:
        """Finish what is in hand."""


class LeasedFeed:
    """The lease-keeping half of a feed; a subclass reads."""

    def __init__(self, topic: str, worker: Worker) -> None:
        self.topic = topic
        self.worker = worker
        self.owned: frozenset[int] = frozenset()
        self.changing = asyncio.Lock()  # partitions are opened and closed by one at a time
        self.handling = asyncio.Lock()  # held by the agent over a batch
        self.started = False
        self._epochs: dict[int, int] = {}

    @property
    def partitions(self) -> int:
        """How many partitions there are, held or not."""
        return self.worker.partitions

    async def start(self) -> None:
        """Connect, and take the first leases."""
        await self.worker.log.open()
        self.worker.partitions = await self.worker.log.partitions()
        await self.worker.leases.start()
        self.started = True

    async def stop(self) -> None:
        """Finish what is in hand and hand the leases over."""
        self.started = False
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self.worker.drain()
        except TimeoutError:
            logger.warning("handed_over_unfinished", topic=self.topic)
        finally:
            await self.worker.leases.stop()

    def opened(self, partition: int) -> None:
        """A partition can be read from now on."""

    async def assignment(self) -> frozenset[int]:
        """Open what was taken, close what was lost, hand over, and say what is owned now."""
        leases = self.worker.leases
        while True:
            async with self.changing:
                lost = self._close_lost()
                left = await self._hand_over()
                opened = await self._open_taken()
                if lost or left or opened:
                    self.owned |= opened
                    return self.owned
            if leases.held.keys() == self.owned and not leases.leaving:
                await leases.changed()
            else:
                await asyncio.sleep(PAUSE_S)

    def _close_lost(self) -> bool:
        """Forget what is not held any more, or was lost and taken again meanwhile."""
        held = self.worker.leases.held
        lost = {p for p, e in self._epochs.items() if p not in held or held[p].epoch != e}
        for partition in lost:
            self.worker.close(partition)
            del self._epochs[partition]
        self.owned -= lost
        return bool(lost)

    async def _hand_over(self) -> bool:
        """Release what belongs to another worker, with nothing of it left in hand."""
        leaving = frozenset(self.worker.leases.leaving)
        if not leaving:
            return False
        self.owned -= leaving  # nothing of it is read any more
        for partition in leaving:
            self._epochs.pop(partition, None)
        try:
            async with asyncio.timeout(HAND_OVER_S), self.handling:
                await self.worker.leave(leaving)
        except TimeoutError:
            logger.warning("handed_over_unfinished", topic=self.topic, partitions=sorted(leaving))
            for partition in leaving:
                self.worker.close(partition)
        await self.worker.leases.hand_over(leaving)
        return True

    async def _open_taken(self) -> frozenset[int]:
        """Open what is held, for a while; at least one partition, where one can be opened."""
        clock = asyncio.get_running_loop().time
        opened: set[int] = set()
        until = clock() + OPEN_S
        for partition in sorted(self._to_open()):
            try:
                epoch = self.worker.leases.held[partition].epoch
                await self.worker.open(partition)
            except (BusUnavailable, LogUnavailable, KeyError) as error:
                logger.warning(
                    "partition_not_opened", topic=self.topic, partition=partition, error=repr(error)
                )
                continue
            self.is_open(partition, epoch)
            opened.add(partition)
            if clock() > until:
                break
        return frozenset(opened)

    def _to_open(self) -> set[int]:
        leases = self.worker.leases
        return leases.held.keys() - self.owned - leases.leaving

    def is_open(self, partition: int, epoch: int) -> None:
        """Note under which taking of its lease a partition was opened."""
        self._epochs[partition] = epoch
        self.opened(partition)
