"""`bench log`: a backlog of commands, to durable in PostgreSQL and visible in the mirror.

The engine's own path through Faust, and the bare loop of the same reads, commits and mirror calls,
in turns and each on the same state; so their ratio says what the engine adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import typer

from processors.app import Worker
from processors.bench import servers
from processors.bench.backlog import SHAPES, Backlog, make_backlog
from processors.bench.bare import BareLoop, Recording, heads, record
from processors.bench.measure import OURSELVES, Run, measured
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.cli.exits import Failed, explained, run
from processors.client import Client
from processors.command_processor import CommandProcessor
from processors.settings import Addresses, Settings
from streams.log import WRITER
from streams.partition import PARTITIONS_DEFAULT, events_key
from streams.transport import running

COMMANDS = 100_000
DRAIN_S_MAX = 300.0
POLL_S = 0.005
RATIO_MIN = 0.5  # of the bare loop
ENGINE, BARE = "engine", "bare loop"
PYTHON = "python"


class Shape(StrEnum):
    """What is drained."""

    START = "start"
    COMPLETE = "complete"


def log(
    commands: Annotated[int, typer.Option(min=1, help="About so many commands a run.")] = COMMANDS,
    shape: Annotated[
        list[Shape], typer.Option(help="start: 1 command → 1 event; complete: 1 → 3.")
    ] = [*Shape],  # noqa: B006
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Drain a backlog of commands, with the engine and with a bare loop, and compare.

    Example:  orchestrator bench log --commands 20000 --shape start
    """
    with explained(as_json), servers.place(database_url, redis_url) as place:
        sizes = {"commands": commands, "partitions": partitions, "repeat": repeat}
        show(run(lambda: measure(place, shape, sizes), as_json=as_json), as_json)


async def measure(place: servers.Place, shapes: list[Shape], sizes: dict[str, int]) -> Report:
    """Both loops in turns, for each shape."""
    machine, warnings = await servers.described(place)
    report = Report("log", dict(sizes), machine, warnings=warnings)
    async with servers.scratch(place, sizes["partitions"]) as addresses:
        for shape in shapes:
            backlog = make_backlog(shape, sizes["commands"], sizes["partitions"])
            bench = LogBench(addresses, {PYTHON: OURSELVES, **place.pids}, backlog)
            await bench.engine()
            await bench.bare()
            engine: list[Run] = []
            bare: list[Run] = []
            for turn in range(sizes["repeat"]):
                for both in (engine, bare) if turn % 2 == 0 else (bare, engine):
                    both.append(await (bench.engine() if both is engine else bench.bare()))
            report.settings[f"commands_{shape}"] = backlog.commands
            report.figures += _figures(backlog, bench.processes, engine, bare)
    return report


def _figures(
    backlog: Backlog, processes: dict[str, int | None], engine: list[Run], bare: list[Run]
) -> list[Figure]:
    title, events = f"1 → {SHAPES[backlog.shape]}", backlog.events
    pairs = zip(engine, bare, strict=True)
    ratios = [other.seconds / own.seconds for own, other in pairs]
    return [
        Figure(f"{title}, {ENGINE}", "events/s", [events / one.seconds for one in engine]),
        Figure(f"{title}, {BARE}", "events/s", [events / one.seconds for one in bare]),
        Figure(f"{title}, {ENGINE} to {BARE}", "ratio", ratios, at_least=RATIO_MIN),
        *cpu_figures(f"{title}, {ENGINE}", processes, engine, events),
        *cpu_figures(f"{title}, {BARE}", processes, bare, events),
    ]


@dataclass(slots=True)
class LogBench:
    """Runs of one backlog; the first must be the engine's, which the bare loop repeats."""

    addresses: Addresses
    processes: dict[str, int | None]
    backlog: Backlog
    recording: Recording = field(default_factory=dict)

    async def engine(self) -> Run:
        """The engine's path: Faust, feed, processor."""
        async with self._prepared() as worker:
            processor: CommandProcessor = worker.feeds[0][1]
            before = await heads(worker.log)
            await self.backlog.fill(worker.bus)
            goal = processor.counters.events + self.backlog.events
            with measured(self.processes) as taken:
                async with asyncio.timeout(DRAIN_S_MAX):
                    await self.backlog.release(worker.bus)
                    while processor.counters.events < goal:  # noqa: ASYNC110
                        await asyncio.sleep(POLL_S)
                    await processor.drain()
            await self._check(worker, before)
            if not self.recording:
                self.recording = await record(worker.log, self.backlog, before)
        return taken

    async def bare(self) -> Run:
        """The bare loop, on the state that the engine began with."""
        async with self._prepared() as worker:
            before = await heads(worker.log)
        worker = Worker(self._settings(), [])
        await worker.log.open()
        try:
            loop = BareLoop(worker.log, worker.bus, self.recording, SHAPES[self.backlog.shape])
            await loop.open()
            await self.backlog.fill(worker.bus)
            with measured(self.processes) as taken:
                async with asyncio.timeout(DRAIN_S_MAX):
                    await self.backlog.release(worker.bus)
                    await loop.drain(self.backlog.commands)
            await self._check(worker, before)
        finally:
            await worker.close()
        return taken

    @asynccontextmanager
    async def _prepared(self) -> AsyncIterator[Worker]:
        """An engine on an emptied log, with the executions started that the backlog is for."""
        await servers.empty(self.addresses)
        worker = Worker(self._settings(), ["commands"])
        try:
            async with running(worker.app()), Client(self.addresses) as client:
                await self.backlog.set_up(client)
                yield worker
        finally:
            await worker.close()

    def _settings(self) -> Settings:
        urls: dict[str, Any] = self.addresses._asdict()
        return Settings(**urls)

    async def _check(self, worker: Worker, before: dict[int, int]) -> None:
        """Refuse to report where an event is missing, in the table or in the mirror."""
        expected = sum(before.values()) + self.backlog.events
        stored = await worker.log.pool.fetchval("SELECT count(*) FROM events")
        after = await heads(worker.log)
        mirrored = 0
        for partition in after:
            newest = await worker.bus.last_id(events_key(partition))
            mirrored += int(newest.partition("-")[0])
        if not expected == stored == sum(after.values()) == mirrored:
            raise Failed(
                f"{expected:,} events should be there; the table has {stored:,}, the cursors of"
                f" `{WRITER}` {sum(after.values()):,}, the mirror {mirrored:,}."
            )
