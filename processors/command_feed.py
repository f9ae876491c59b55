"""What the command processor reads: the command streams of the partitions that it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import structlog

from processors.command_processor import ENTRIES_MAX, CommandProcessor
from processors.inbox import Inbox
from processors.leased_feed import PAUSE_S, LeasedFeed
from streams.bus import BusUnavailable
from streams.ending import end
from streams.feed import Batch
from streams.log import WRITER, LogUnavailable
from streams.partition import commands_key

BATCH_ENTRIES_MAX = 4_000
"""All partitions together in one batch. Deciding it takes a fraction of the shortest lease, or a
worker with a backlog would lose its leases over every batch, and so would the next one."""
BLOCK_MS = 500  # how long an idle read keeps a newly taken partition waiting
TRIM_S = 2.0

UNOWNED_S = 0.02  # between two looks whether a partition has been opened

logger = structlog.get_logger(__name__)


class CommandFeed(LeasedFeed):
    """Batches of command entries over the owned partitions; keeps the `streams.feed` promise."""

    def __init__(self, processor: CommandProcessor, inbox: Inbox) -> None:
        super().__init__(WRITER, processor)
        self.processor = processor
        self.inbox = inbox
        self._moving: asyncio.Task[None] | None = None
        self._offsets: dict[int, str] = {}
        self._trimmed = float("-inf")
        self._busy = 0  # streams that had something at the last look; not known after a pause
        self._doubtful = False

    async def start(self) -> None:
        """Check Redis, take the first leases, and move what strangers publish."""
        await self.processor.bus.open()
        if self.processor.admission is not None:
            await self.processor.admission.start()
        await super().start()
        self.inbox.partitions = self.partitions
        self._moving = asyncio.create_task(self.inbox.run(), name="inbox")

    async def stop(self) -> None:
        """Move nothing more, finish what is in hand, and hand the leases over."""
        await end(self._moving)
        await super().stop()
        if self.processor.admission is not None:
            await self.processor.admission.stop()

    def opened(self, partition: int) -> None:
        """Read on from the partition's durable offset."""
        self._offsets[partition] = self.processor.parts[partition].offset

    async def next(self) -> Batch | None:
        """The next entries of each owned partition; None when nothing came for a while."""
        try:
            await self._mend()
            if self._doubtful:
                await self._watch_incarnation()
            await self._trim()
            parts = {p: self.processor.parts[p] for p in self.owned if p in self.processor.parts}
            offsets, count = self._after(parts.keys())
            if not offsets:
                await asyncio.sleep(UNOWNED_S)
                return None
            careful = bool(self.processor.careful)
            streams = await self.processor.bus.read(offsets, count, 1 if careful else BLOCK_MS)
        except (BusUnavailable, LogUnavailable) as error:
            logger.warning("commands_unavailable", error=str(error))
            self._doubtful = True  # the Redis that answers next may be another one
            await asyncio.sleep(PAUSE_S)
            return None
        if not streams and careful:
            await self._less_careful(next(p for p in parts if commands_key(p) in offsets))
            return None
        if not streams:
            self._busy = 0
            await self._watch_incarnation()
            return None
        self._busy = len(streams)
        entries = {}
        for partition, part in parts.items():
            batch = streams.get(commands_key(partition))
            # What was read for a state that was dropped meanwhile is read again from its offset.
            if batch and self.processor.parts.get(partition) is part:
                entries[partition] = (part, batch)
                self._offsets[partition] = batch[-1][0]
        return Batch(tuple(entries), entries) if entries else None

    def _after(self, partitions: Iterable[int]) -> tuple[dict[str, str], int]:
        """Which streams to read from where, and how many entries of each at most."""
        offsets = {p: self._offsets[p] for p in partitions}
        careful = [p for p in offsets if p in self.processor.careful]
        if careful:
            partition = min(careful)
            key = commands_key(partition)
            return {key: offsets[partition]}, self.processor.careful[partition]
        count = min(ENTRIES_MAX, BATCH_ENTRIES_MAX // (self._busy or len(offsets) or 1) or 1)
        return {commands_key(p): offset for p, offset in offsets.items()}, count

    async def _less_careful(self, partition: int) -> None:
        """What was to be tried in small batches is read; if it is committed too, care is over."""
        await self.processor.settle()  # the last of it may just be refused
        if self.processor.is_whole(partition):
            self.processor.careful.pop(partition, None)

    async def _mend(self) -> None:
        """Open again what was dropped because a commit failed."""
        if all(map(self.processor.is_whole, self.owned)):
            return
        await self.processor.settle()
        async with self.changing:
            for partition in self.owned:
                if self.processor.is_whole(partition):
                    continue
                with suppress(KeyError):  # lost meanwhile: `assignment` closes it
                    if await self.processor.reopen(partition):
                        self.is_open(partition, self.processor.leases.held[partition].epoch)

    async def rewind(self) -> None:
        """The agent crashed: nothing of what it had in memory counts."""
        for part in self.processor.parts.values():
            part.valid = False

    async def _watch_incarnation(self) -> None:
        """An idle moment: is this still the Redis that we have been reading?"""
        try:
            incarnation = await self.processor.bus.incarnation()
        except BusUnavailable:
            self._doubtful = True
            return
        self._doubtful = False
        for partition in self.owned:
            part = self.processor.parts.get(partition)
            if part is not None and part.valid and part.cursor.incarnation != incarnation:
                logger.warning("redis_was_replaced", partition=partition)
                part.cursor.incarnation, part.cursor.stream_offset = incarnation, "0-0"
                self._offsets[partition] = "0-0"

    async def _trim(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._trimmed >= TRIM_S:
            self._trimmed = now
            # Another Redis than the one that was read gives other ids: nothing of it is passed.
            await self._watch_incarnation()
            if not self._doubtful:
                await self.processor.trim()
                await self.processor.mend()
