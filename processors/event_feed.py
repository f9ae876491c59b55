"""What process managers and projectors read: the events of the partitions that they hold."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog

from processors.leased_feed import PAUSE_S, LeasedFeed, Worker
from streams.bus import Bus
from streams.codec import decode_event
from streams.feed import Batch
from streams.log import Log, LogUnavailable
from streams.tail import Tail

BLOCK_MS = 500

UNOWNED_S = 0.02  # between two looks whether a partition has been opened

logger = structlog.get_logger(__name__)


class Reader(Worker, Protocol):
    """A worker that has a position in each partition."""

    positions: dict[int, int]
    """How far each open partition has been handled."""


class EventFeed(LeasedFeed):
    """Batches of decoded events over the owned partitions; keeps the `streams.feed` promise."""

    def __init__(self, topic: str, reader: Reader, log: Log, bus: Bus) -> None:
        super().__init__(topic, reader)
        self.reader = reader
        self.tail = Tail(log, bus)
        self._positions: dict[int, int] = {}
        self._rewound = False

    def opened(self, partition: int) -> None:
        """Read on from the partition's durable position."""
        self._positions[partition] = self.reader.positions[partition]

    async def next(self) -> Batch | None:
        """The next events of each owned partition; None when nothing came for a while."""
        try:
            await self._mend()
            positions = {p: self._positions[p] for p in self.owned if p in self._positions}
            if not positions:
                await asyncio.sleep(UNOWNED_S)
                return None
            found = await self.tail.read(positions, BLOCK_MS)
        except LogUnavailable as error:
            logger.warning("events_unavailable", topic=self.topic, error=str(error))
            await asyncio.sleep(PAUSE_S)
            return None
        if not found:
            return None
        entries = {}
        for partition, messages in found.items():
            # A partition that was opened again meanwhile reads on from where it was opened.
            if self._positions.get(partition) == positions[partition]:
                entries[partition] = [decode_event(raw) for raw in messages]
                self._positions[partition] += len(messages)
        return Batch(tuple(entries), entries) if entries else None

    async def rewind(self) -> None:
        """The agent crashed: open every partition again at its durable position."""
        self._rewound = True

    async def _mend(self) -> None:
        if self._rewound:
            for partition in self.owned:
                self.worker.close(partition)
            self._rewound = False
        if self.owned <= self.reader.positions.keys():
            return
        async with self.changing:
            held = self.worker.leases.held
            for partition in self.owned - self.reader.positions.keys():
                with suppress(KeyError):  # lost meanwhile: `assignment` closes it
                    epoch = held[partition].epoch
                    await self.worker.open(partition)
                    self.is_open(partition, epoch)
