"""A log of two partitions, its mirror in memory, and one reader of its tail."""

from __future__ import annotations

from typing import Any, cast

from streams.bus import Bus
from streams.log import WRITER, LogUnavailable, Share, Stored
from streams.logs.memory import MemoryLog
from streams.tail import Tail
from tests.fake_bus import FakeBus
from tests.partitions import NOW


class CountingLog(MemoryLog):
    """Counts the reads of the table; `away` refuses them."""

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.reads = 0
        self.looks = 0
        self.away = False

    async def read(self, partition: int, after: int, limit: int) -> list[Stored]:
        if self.away:
            raise LogUnavailable("away")
        self.reads += 1
        return await super().read(partition, after, limit)

    async def cursors(self, consumer: str) -> Any:
        if self.away:
            raise LogUnavailable("away")
        self.looks += 1
        return await super().cursors(consumer)


class World:
    """A log of two partitions, its mirror, and one reader."""

    def __init__(self) -> None:
        self.log = CountingLog(2)
        self.bus = FakeBus()
        self.now = 0.0
        self.tail = Tail(self.log, cast(Bus, self.bus), clock=lambda: self.now)
        self.positions = {0: 0, 1: 0}
        self.got: dict[int, list[bytes]] = {0: [], 1: []}
        self.mirrored = {0: 0, 1: 0}

    async def commit(self, partition: int, count: int, mirror: bool = True) -> None:
        """Append events; their mirror may fail to come about."""
        cursor = (await MemoryLog.cursors(self.log, WRITER))[partition]
        if cursor.owner is None:
            [cursor] = await self.log.take([cursor], "me")
        messages = [b"%d/%d" % (partition, cursor.position + 1 + n) for n in range(count)]
        share = Share(partition, cursor.epoch, cursor.position, cursor.commits + 1, cursor.hash)
        share.types = share.subjects = ["x"] * count
        share.messages = messages
        assert await self.log.append([share], NOW)
        if mirror:
            await self.mirror(partition)

    async def mirror(self, partition: int) -> None:
        """What the processor does after a commit: bring the stream up to the head."""
        stored = await MemoryLog.read(self.log, partition, self.mirrored[partition], 10**6)
        first = self.mirrored[partition] + 1
        await self.bus.mirror([(partition, first, [one.message for one in stored])])
        self.mirrored[partition] += len(stored)

    async def read(self) -> bool:
        """One read of the reader; whether anything came."""
        found = await self.tail.read(self.positions, 0)
        for partition, messages in found.items():
            self.got[partition] += messages
            self.positions[partition] += len(messages)
        return bool(found)

    def whole(self, partition: int) -> bool:
        """Whether the reader has every event, once and in order."""
        count = len(self.log._events[partition])
        return self.got[partition] == [b"%d/%d" % (partition, n) for n in range(1, count + 1)]
