"""What process managers and projectors read: the events of the partitions that they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from processors.hand_over import HandOver
from processors.leased_feed import HAND_OVER_S, PAUSE_S, LeasedFeed, Worker
from streams.bus import Bus
from streams.codec import decode_event
from streams.ending import end
from streams.feed import Batch
from streams.log import Log, LogUnavailable
from streams.message import Event
from streams.tail import Tail

BLOCK_MS = 500

UNOWNED_S = 0.02  # between two looks whether a partition has been opened

logger = structlog.get_logger(__name__)


class Reader(Worker, Protocol):
    """A worker that has a position in each partition."""

    positions: dict[int, int]
    """How far each open partition has been handled."""

    async def handle(self, entries: Mapping[int, Sequence[Event]]) -> None:
        """Work on a batch."""


class EventFeed(LeasedFeed):
    """Batches of decoded events over the owned partitions; keeps the `streams.feed` promise."""

    def __init__(
        self,
        topic: str,
        reader: Reader,
        log: Log,
        bus: Bus,
        beside: HandOver | None = None,
        pace_s: float = 0.0,
    ) -> None:
        """`beside` has what is committed in this process; the way over Redis is the other one.

        `pace_s` is how long one batch begins after another, at least: what is read seldom is read
        in large batches, and costs less. After a quiet time nothing waits.
        """
        super().__init__(topic, reader)
        self.reader = reader
        self.tail = Tail(log, bus)
        self.beside = beside
        self.pace_s = pace_s
        self._read_at = float("-inf")
        self._elsewhere: dict[int, int] = {}
        self._reading: asyncio.Task[dict[int, list[bytes]]] | None = None
        self._positions: dict[int, int] = {}
        self._rewound = False
        self._at_once: asyncio.Task[None] | None = None
        self._failed: Exception | None = None
        if beside is not None:
            beside.taker = self._take

    def opened(self, partition: int) -> None:
        """Read on from the partition's durable position."""
        self._positions[partition] = self.reader.positions[partition]

    async def next(self) -> Batch | None:
        """The next events of each owned partition; None when nothing came for a while."""
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        try:
            await self._mend()
            positions = {p: self._positions[p] for p in self.owned if p in self._positions}
            if not positions:
                await asyncio.sleep(UNOWNED_S)
                return None
            if self.pace_s:
                await self._keep_pace()
            if self.beside is None:
                found = await self.tail.read(positions, BLOCK_MS)
            else:
                found = await self._either(self.beside, positions)
        except LogUnavailable as error:
            logger.warning("events_unavailable", topic=self.topic, error=str(error))
            await asyncio.sleep(PAUSE_S)
            return None
        if not found:
            return None
        self._read_at = asyncio.get_running_loop().time()
        entries = self._decoded(found, positions)
        return Batch(tuple(entries), entries) if entries else None

    def _decoded(
        self, found: Mapping[int, Sequence[bytes]], positions: Mapping[int, int]
    ) -> dict[int, list[Event]]:
        entries = {}
        for partition, messages in found.items():
            # A partition that was opened again meanwhile reads on from where it was opened.
            if self._positions.get(partition) == positions[partition]:
                entries[partition] = [decode_event(raw) for raw in messages]
                self._positions[partition] += len(messages)
        return entries

    def _take(self) -> bool:
        """Handle what was just committed beside us, where nothing that was read waits before it.

        The way through the agent's queue takes three turns of the loop, and is for what is read
        elsewhere, and for all after a failure, which comes out of `next`.
        """
        if self._at_once is not None:
            return True  # it goes on with this when it is done with the last
        if not (entries := self._in_turn()):
            return False
        self._at_once = asyncio.create_task(self._handle(entries), name=f"{self.topic} at once")
        return True

    def _in_turn(self) -> dict[int, list[Event]]:
        """What is beside us, if all of it can be handled now; nothing otherwise."""
        beside = self.beside
        if beside is None or not self.started or self._rewound or self._failed is not None:
            return {}
        handled = self.reader.positions
        mine = {
            p: self._positions[p]
            for p in beside.partitions
            if p in self.owned and handled.get(p, -1) == self._positions.get(p)
        }
        if not mine or len(mine) < len(beside.partitions):
            return {}
        return self._decoded(beside.take(mine), mine)

    async def _handle(self, entries: dict[int, list[Event]]) -> None:
        try:
            while entries:
                async with self.handling:
                    await self.reader.handle(entries)
                entries = self._in_turn()
        except Exception as failed:
            self._failed = failed
        finally:
            self._at_once = None
            if (beside := self.beside) and (beside.partitions or self._failed is not None):
                beside.wake()  # what is left is for `next`, and so is a failure

    async def stop(self) -> None:
        """Read nothing more, finish what is in hand, and hand the leases over."""
        self.started = False
        await end(self._reading)
        if (at_once := self._at_once) is not None:
            await asyncio.wait([at_once], timeout=HAND_OVER_S)
            await end(at_once)
        await super().stop()

    async def _keep_pace(self) -> None:
        now = asyncio.get_running_loop().time
        if (early_s := self._read_at + self.pace_s - now()) > 0:
            await asyncio.sleep(early_s)

    async def _either(self, beside: HandOver, positions: dict[int, int]) -> dict[int, list[bytes]]:
        """What was committed beside us, or is elsewhere; waits a while for the first of either.

        The read of what is elsewhere goes on from one call to the next, and never twice at once.
        """
        found = self._next(beside, positions)
        if not found:
            with suppress(TimeoutError):
                async with asyncio.timeout(BLOCK_MS / 1_000):
                    await beside.arrived()
                found = self._next(beside, positions)
        return found

    def _next(self, beside: HandOver, positions: dict[int, int]) -> dict[int, list[bytes]]:
        found = beside.take(positions)
        if (reading := self._reading) is not None and reading.done():
            self._reading = None
            for partition, messages in reading.result().items():
                if positions.get(partition) == self._elsewhere[partition]:
                    found.setdefault(partition, messages)
        left = {p: at for p, at in positions.items() if p not in found}
        elsewhere = beside.elsewhere(left)
        if self._reading is not None and elsewhere.keys() - self._elsewhere.keys():
            self._reading.cancel()  # it waits for others
            self._reading = None
        if elsewhere and self._reading is None:
            self._elsewhere = elsewhere
            self._reading = asyncio.create_task(
                self.tail.read(elsewhere, BLOCK_MS), name=f"{self.topic} elsewhere"
            )
            self._reading.add_done_callback(lambda _: beside.wake())
        return found

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
