"""The log's loops as worker processes, each with its share of the partitions, watched from here.

Engine and bare loop run in equally many processes, on equal shares: the engine's workers get names
by which the leases' own rule gives each the same number of partitions.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from processors.app import Worker
from processors.bench.bare import BareLoop, Recording
from processors.cli.exits import Failed
from processors.settings import Settings
from processors.worker import steady_heap
from streams.members import weight
from streams.transport import running

POLL_S = 0.005
START_S_MAX = 60.0
STOP_S_MAX = 10.0
READY, DRAIN, DRAINED, STOP = "ready", "drain", "drained", "stop"

Serve = Callable[..., Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Member:
    """One process, and the pipe to it."""

    process: BaseProcess
    line: Connection
    events: int = 0
    """Committed, as far as it has said."""

    async def until(self, word: str) -> None:
        """Wait for a word, and note how far it is meanwhile; raises Failed where it ends."""
        while (said := await self._said()) != word:
            self.events = said

    async def _said(self) -> Any:
        while not self.line.poll():
            if not self.process.is_alive():
                raise Failed(f"{self.process.name} has ended with {self.process.exitcode}.")
            await asyncio.sleep(POLL_S)
        return self.line.recv()

    def look(self) -> int:
        """How many events it has committed."""
        while self.line.poll():
            self.events = self.line.recv()
        return self.events


@dataclass(slots=True)
class Fleet:
    """Processes that drain a backlog together."""

    members: list[Member] = field(default_factory=list)

    @property
    def pids(self) -> dict[str, int | None]:
        """The processes by name."""
        return {one.process.name: one.process.pid for one in self.members}

    async def committed(self, events: int) -> None:
        """Wait until all together have committed so many."""
        while sum(one.look() for one in self.members) < events:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    async def drained(self) -> None:
        """Have all finish what is in hand."""
        for one in self.members:
            one.line.send(DRAIN)
        for one in self.members:
            await one.until(DRAINED)


@asynccontextmanager
async def fleet(serve: Serve, shares: Sequence[tuple[Any, ...]]) -> AsyncIterator[Fleet]:
    """One process for each share, which are the arguments of what it does; ready when it begins."""
    # Forked from a process that runs nothing, and has imported what takes a second to import.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    made = Fleet()
    try:
        for number, arguments in enumerate(shares, 1):
            ours, theirs = context.Pipe()
            name = f"python {number}" if len(shares) > 1 else "python"
            process = context.Process(
                target=_run, args=(serve, theirs, arguments), name=name, daemon=True
            )
            process.start()
            made.members.append(Member(process, ours))
        async with asyncio.timeout(START_S_MAX):
            for one in made.members:
                await one.until(READY)
        yield made
    finally:
        for one in made.members:
            if one.process.is_alive():
                one.line.send(STOP)
        for one in made.members:
            await asyncio.to_thread(one.process.join, STOP_S_MAX)
            one.process.kill()


def names(workers: int, partitions: int) -> list[str]:
    """Names by which the leases' rule gives each worker as many partitions as the others."""
    for attempt in count():
        found = [f"bench-{attempt}-{number}" for number in range(workers)]
        owners = Counter(
            max(found, key=lambda name: weight(name, partition)) for partition in range(partitions)
        )
        if max(owners.values()) <= -(-partitions // workers):
            return found
    raise AssertionError("some attempt is even")


def _run(serve: Serve, line: Connection, arguments: tuple[Any, ...]) -> None:
    asyncio.run(serve(line, *arguments))


async def engine(line: Connection, settings: Settings, name: str, share: int) -> None:
    """A worker for commands with so many partitions; says how many events it has committed."""
    worker = Worker(settings, ["commands"], name)
    _, processor = worker.feeds[0]
    steady_heap()
    try:
        async with running(worker.app()):
            while len(processor.parts) != share:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
            line.send(READY)
            told = 0
            while True:
                if line.poll():
                    if line.recv() == STOP:
                        return
                    await processor.drain()
                    line.send(DRAINED)
                if processor.counters.events != told:
                    told = processor.counters.events
                    line.send(told)
                await asyncio.sleep(POLL_S)
    finally:
        await worker.close()


async def bare(
    line: Connection, settings: Settings, recording: Recording, commands: int, each: int
) -> None:
    """The bare loop for the partitions of a recording."""
    worker = Worker(settings, [])
    await worker.log.open()
    try:
        loop = BareLoop(worker.log, worker.bus, recording, each)
        await loop.open()
        gc.collect()
        steady_heap()
        line.send(READY)
        await loop.drain(commands)
        await asyncio.to_thread(line.recv)
        line.send(DRAINED)
        await asyncio.to_thread(line.recv)
    finally:
        await worker.close()
