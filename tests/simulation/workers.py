"""A worker of a simulation: the loops of `processors`, unmodified, on wires instead of servers.

The little that Faust's transport adds is done here: say what is owned, read, hand over, begin again
after a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from processors.command_feed import CommandFeed
from processors.command_processor import CommandProcessor
from processors.event_feed import EventFeed
from processors.hand_over import HandOver
from processors.manager_states import Roster
from processors.managers import MANAGERS
from processors.process_manager import TOPIC, ProcessManager
from processors.task_sender import TaskSender
from streams.leases import Leases
from streams.log import WRITER, LogUnavailable
from streams.logs.memory import MemoryLog
from tests.simulation.servers import BusWire, LogWire, Redis, Weather

LEASE_S = 2.0
CRASH_PAUSE_S = 0.1
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class NoInbox:
    """The stream `commands` is Redis' own business: its consumer group is not simulated."""

    partitions = 0

    async def run(self) -> None:
        """Nothing to move."""
        await asyncio.Event().wait()


class Worker:
    """One process with the roles commands and managers."""

    def __init__(self, name: str, log: MemoryLog, redis: Redis, weather: Weather) -> None:
        self.name = name
        self.crashes: list[BaseException] = []
        self._tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()

        def wires(role: str) -> tuple[Any, Any]:
            return LogWire(log, weather, role), BusWire(redis, weather, role)

        log_, bus = wires("commands")
        self.processor = CommandProcessor(
            log_,
            bus,
            Leases(log_, WRITER, name, LEASE_S),
            lambda: BEGINNING + timedelta(seconds=loop.time()),
            0,
        )
        beside = self.processor.hand_over = HandOver(self.processor.committed)
        inbox: Any = NoInbox()
        log_, bus = wires("managers")
        leases = Leases(log_, TOPIC, name, LEASE_S)

        def epoch_of(partition: int) -> int | None:
            cursor = leases.held.get(partition)
            return None if cursor is None else cursor.epoch

        self.sender = TaskSender(log_, bus, 0, None, epoch_of)
        self.managers = ProcessManager(Roster(MANAGERS), log_, self.sender, leases, 0, loop.time)
        self.event_feed = EventFeed(TOPIC, self.managers, log_, bus, beside)
        self.feeds: list[tuple[Any, Any]] = [
            (CommandFeed(self.processor, inbox), self.processor),
            (self.event_feed, self.managers),
        ]

    def start(self) -> None:
        """Begin to work."""
        for feed, worker in self.feeds:
            self._begin(self._serve(feed, worker), feed.topic)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=f"{self.name} {name}"))

    async def stop(self) -> None:
        """Stop in order: what is in hand is finished, and the leases are handed over."""
        for feed, _ in self.feeds:
            await feed.stop()

    async def _serve(self, feed: Any, worker: Any) -> None:
        while True:
            try:
                await feed.start()
                break
            except LogUnavailable:  # whatever supervises the process begins it again
                await asyncio.sleep(CRASH_PAUSE_S)
        self._begin(self._announce(feed), f"assignment of {feed.topic}")
        while feed.started:
            try:
                batch = await feed.next()
                if batch is None:
                    await asyncio.sleep(0)
                    continue
                async with feed.handling:
                    await worker.handle(batch.entries)
            except Exception as failed:
                self.crashes.append(failed)
                await asyncio.sleep(CRASH_PAUSE_S)
                await feed.rewind()

    async def _announce(self, feed: Any) -> None:
        while feed.started:
            try:
                await feed.assignment()
            except Exception as failed:
                self.crashes.append(failed)
                await asyncio.sleep(CRASH_PAUSE_S)
