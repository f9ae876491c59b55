"""The command processor over a log and a Redis in memory, driven by hand, with planned faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

from aggregates import DECIDERS
from processors.command_feed import CommandFeed
from processors.command_processor import CommandProcessor
from processors.inbox import Inbox
from processors.partition_state import REFUSAL
from processors.replies import decode_outcome
from processors.vocabulary import Vocabulary
from streams.bus import Bus
from streams.chain import verify
from streams.codec import decode_event, encode_command
from streams.leases import Leases
from streams.log import (
    WRITER,
    CommitUnknown,
    Cursor,
    LogUnavailable,
    Share,
    SnapshotRow,
    Stored,
    Unacceptable,
)
from streams.logs.memory import MemoryLog
from streams.message import Command, Event, Outcome
from streams.partition import commands_key, events_key, partition_of
from tests.fake_bus import FakeBus
from tests.partitions import NOW
from tests.tallies import TALLY

NAMES = Vocabulary((*DECIDERS, TALLY))
LEASE_S = 5.0
MARK = "unacceptable"


class FaultyLog(MemoryLog):
    """A log with planned faults: one word for each of the next appends."""

    def __init__(self, partitions: int = 1) -> None:
        super().__init__(partitions)
        self.faults: list[str] = []
        self.appends: list[list[int]] = []
        self.read_faults = 0
        self.save_faults: list[str] = []
        self.accepts_all = False
        self.gate: asyncio.Event | None = None
        self.waiting = asyncio.Event()

    async def append(self, shares: Sequence[Share], time: datetime) -> set[int]:
        if self.gate is not None:
            self.waiting.set()
            await self.gate.wait()
        fault = self.faults.pop(0) if self.faults else ""
        messages = () if self.accepts_all else (m for share in shares for m in share.messages)
        if any(MARK.encode() in message for message in messages):
            raise Unacceptable("not for this database")
        if fault == "away":
            raise LogUnavailable("away")
        if fault == "unknown":
            raise CommitUnknown("nothing was committed")
        committed = await super().append(shares, time)
        self.appends.append([len(share.commands) for share in shares])
        if fault == "answer lost":
            raise CommitUnknown("it was committed")
        return committed

    async def save(self, cursor: Cursor, position: int, states: Sequence[SnapshotRow]) -> bool:
        fault = self.save_faults.pop(0) if self.save_faults else ""
        if fault == "away":
            raise LogUnavailable("away")
        return fault != "fenced" and await super().save(cursor, position, states)

    async def read(self, partition: int, after: int, limit: int) -> list[Stored]:
        if self.read_faults:
            self.read_faults -= 1
            raise LogUnavailable("away")
        return await super().read(partition, after, limit)


class Process:
    """One process that decides, driven by hand."""

    def __init__(self, log: FaultyLog, bus: FakeBus, name: str = "me") -> None:
        self.log, self.bus = log, bus
        self.now = 0.0
        self.leases = Leases(log, WRITER, name, LEASE_S, lambda: self.now)
        self.processor = CommandProcessor(
            log, cast(Bus, bus), self.leases, lambda: NOW, log._partitions, NAMES
        )
        self.feed = CommandFeed(self.processor, cast(Inbox, None))

    async def begin(self) -> Process:
        """Take what is free."""
        await self.leases.round()
        if self.leases.held:
            await self.feed.assignment()
        return self

    async def settle_assignment(self) -> None:
        """Open what was taken and close what was lost."""
        while True:
            if self.feed.owned != frozenset(self.leases.held):
                await self.feed.assignment()
            elif self.leases._changed.is_set():
                await self.leases.changed()
            else:
                return

    async def step(self) -> bool:
        """One batch, if there is one."""
        batch = await self.feed.next()
        if batch is not None:
            await self.processor.handle(batch.entries)
        return batch is not None

    async def run(self) -> Process:
        """Until nothing comes any more and everything is committed."""
        idle = 0
        for _ in range(500):
            idle = 0 if await self.step() else idle + 1
            await self.processor.settle()
            valid = all(part.valid for part in self.processor.parts.values())
            if idle >= 2 and valid:
                await self.processor.drain()
                return self
        raise AssertionError("it does not come to rest")


class World:
    """A log, a Redis, one process, and what was published."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.log = FaultyLog(partitions)
        self.bus = FakeBus()
        self.me = Process(self.log, self.bus)

    def publish(self, *said: Command | bytes, partition: int = 0) -> None:
        for one in said:
            raw = one if isinstance(one, bytes) else encode_command(one)
            if isinstance(one, Command):
                partition = partition_of(one.root, self.partitions)
            self.bus.add(commands_key(partition), raw)

    async def events(self, partition: int = 0) -> list[Event]:
        stored = await MemoryLog.read(self.log, partition, 0, 10**6)
        return [decode_event(one.message) for one in stored]

    async def numbers(self, partition: int = 0) -> list[int]:
        """What was added, in order."""
        return [e.data["number"] for e in await self.events(partition) if e.type == "Added"]

    async def whole(self) -> None:
        """I1, I2, I6, I11: positions, versions, chain and mirror."""
        for partition in range(self.partitions):
            events = await self.events(partition)
            assert [event.position for event in events] == list(range(1, len(events) + 1))
            versions: dict[str, int] = {}
            for event in events:
                step = 0 if event.type == REFUSAL else 1
                assert event.version == versions.get(event.subject, 0) + step
                versions[event.subject] = event.version
            assert (await verify(self.log, partition)).ok

    async def mirrored(self, partition: int = 0) -> bool:
        """I11: the mirror is the log."""
        stored = await MemoryLog.read(self.log, partition, 0, 10**6)
        return self.bus.messages(events_key(partition)) == [one.message for one in stored]

    def outcomes(self) -> list[Outcome]:
        return [decode_outcome(raw) for raw in self.bus.messages("replies:me")]


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until it holds."""
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never holds")


async def crashing(me: Process, doing: Any) -> None:
    """Do something; where it raises, the agent has crashed and the feed is rewound."""
    try:
        await doing
    except LogUnavailable:
        await me.feed.rewind()
