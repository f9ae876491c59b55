"""`bench log`: a backlog of commands, to durable in PostgreSQL and visible in the mirror.

The engine's own path through Faust, and the bare loop of the same reads, commits and mirror calls,
in turns and each on the same state; so their ratio says what the engine adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import typer

from processors.app import Worker
from processors.bench import servers
from processors.bench.backlog import SHAPES, Backlog, make_backlog
from processors.bench.bare import Recording, heads, record
from processors.bench.fleet import Fleet, bare, engine, names
from processors.bench.fleet import fleet as processes
from processors.bench.measure import Run, measured
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.cli.exits import Failed, explained, run
from processors.client import Client
from processors.settings import Addresses, Settings
from streams.bus import Bus
from streams.log import WRITER
from streams.logs.postgres import PostgresLog
from streams.partition import PARTITIONS_DEFAULT, events_key
from streams.transport import running

COMMANDS = 100_000
DRAIN_S_MAX = 300.0
WORKERS = 1
RATIO_MIN = 0.6  # of the bare loop
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
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes of either loop, on equal shares.")
    ] = WORKERS,
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
        sizes = {
            "commands": commands,
            "partitions": partitions,
            "repeat": repeat,
            "workers": workers,
        }
        show(run(lambda: measure(place, shape, sizes), as_json=as_json), as_json)


async def measure(place: servers.Place, shapes: list[Shape], sizes: dict[str, int]) -> Report:
    """Both loops in turns, for each shape."""
    machine, warnings = await servers.described(place)
    report = Report("log", dict(sizes), machine, warnings=warnings)
    workers = sizes.get("workers", WORKERS)
    if sizes["partitions"] % workers:
        raise Failed("Give so many partitions that every worker can have as many as the others.")
    async with (
        servers.scratch(place, sizes["partitions"]) as addresses,
        _connected(addresses) as ours,
    ):
        for shape in shapes:
            backlog = make_backlog(shape, sizes["commands"], sizes["partitions"])
            bench = LogBench(addresses, place.pids, backlog, workers, ours.log, ours.bus)
            await bench.engine()
            await bench.bare()
            own: list[Run] = []
            other: list[Run] = []
            for turn in range(sizes["repeat"]):
                for both in (own, other) if turn % 2 == 0 else (other, own):
                    both.append(await (bench.engine() if both is own else bench.bare()))
            report.settings[f"commands_{shape}"] = backlog.commands
            report.figures += _figures(backlog, own, other)
    return report


@asynccontextmanager
async def _connected(addresses: Addresses) -> AsyncIterator[Worker]:
    """Connections of our own, for what is prepared and checked."""
    worker = Worker(Settings(**addresses._asdict()), [])
    await worker.log.open()
    try:
        yield worker
    finally:
        await worker.close()


def _figures(backlog: Backlog, engine: list[Run], bare: list[Run]) -> list[Figure]:
    title, events = f"1 → {SHAPES[backlog.shape]}", backlog.events
    pairs = zip(engine, bare, strict=True)
    ratios = [other.seconds / own.seconds for own, other in pairs]
    return [
        Figure(f"{title}, {ENGINE}", "events/s", [events / one.seconds for one in engine]),
        Figure(f"{title}, {BARE}", "events/s", [events / one.seconds for one in bare]),
        Figure(f"{title}, {ENGINE} to {BARE}", "ratio", ratios, at_least=RATIO_MIN),
        *cpu_figures(f"{title}, {ENGINE}", engine[0].cpu, engine, events),
        *cpu_figures(f"{title}, {BARE}", bare[0].cpu, bare, events),
    ]


@dataclass(slots=True)
class LogBench:
    """Runs of one backlog; the first must be the engine's, which the bare loop repeats."""

    addresses: Addresses
    servers: dict[str, int | None]
    backlog: Backlog
    workers: int
    log: PostgresLog
    bus: Bus
    recording: Recording = field(default_factory=dict)

    async def engine(self) -> Run:
        """The engine's path: Faust, feed, processor."""
        async with self._engine() as (fleet, before):
            await self.backlog.fill(self.bus)
            with self._measured(fleet) as taken:
                async with asyncio.timeout(DRAIN_S_MAX):
                    await self.backlog.release(self.bus)
                    await fleet.committed(sum(before.values()) + self.backlog.events)
                    await fleet.drained()
        await self._check(before)
        if not self.recording:
            self.recording = await record(self.log, self.backlog, before)
        return _together(taken)

    async def bare(self) -> Run:
        """The bare loop, on the state that the engine began with."""
        await servers.empty(self.addresses)
        worker = Worker(self._settings(), ["commands"])
        try:
            async with running(worker.app()), Client(self.addresses) as client:
                await self.backlog.set_up(client)
        finally:
            await worker.close()
        before = await heads(self.log)
        each = SHAPES[self.backlog.shape]
        shares: list[tuple[Any, ...]] = []
        for number in range(self.workers):
            own = {p: part for p, part in self.recording.items() if p % self.workers == number}
            commands = sum(len(self.backlog.messages.get(p, ())) for p in own)
            shares.append((self._settings(), own, commands, each))
        async with processes(bare, shares) as fleet:
            await self.backlog.fill(self.bus)
            with self._measured(fleet) as taken:
                async with asyncio.timeout(DRAIN_S_MAX):
                    await self.backlog.release(self.bus)
                    await fleet.drained()
        await self._check(before)
        return _together(taken)

    @asynccontextmanager
    async def _engine(self) -> AsyncIterator[tuple[Fleet, dict[int, int]]]:
        """Workers on an emptied log, with the executions started that the backlog is for."""
        await servers.empty(self.addresses)
        named = names(self.workers, self.backlog.partitions)
        share = self.backlog.partitions // self.workers
        shares = [(self._settings(), name, share) for name in named]
        async with processes(engine, shares) as fleet, Client(self.addresses) as client:
            await self.backlog.set_up(client)
            yield fleet, await heads(self.log)

    def _measured(self, fleet: Fleet) -> AbstractContextManager[Run]:
        return measured({**fleet.pids, **self.servers})

    def _settings(self) -> Settings:
        urls: dict[str, Any] = self.addresses._asdict()
        return Settings(**urls)

    async def _check(self, before: dict[int, int]) -> None:
        """Refuse to report where an event is missing, in the table or in the mirror."""
        expected = sum(before.values()) + self.backlog.events
        stored = await self.log.pool.fetchval("SELECT count(*) FROM events")
        after = await heads(self.log)
        mirrored = 0
        for partition in after:
            newest = await self.bus.last_id(events_key(partition))
            mirrored += int(newest.partition("-")[0])
        if not expected == stored == sum(after.values()) == mirrored:
            raise Failed(
                f"{expected:,} events should be there; the table has {stored:,}, the cursors of"
                f" `{WRITER}` {sum(after.values()):,}, the mirror {mirrored:,}."
            )


def _together(run: Run) -> Run:
    """The CPU of the workers as one figure."""
    servers_only = {name: s for name, s in run.cpu.items() if not name.startswith(PYTHON)}
    own = sum(seconds for name, seconds in run.cpu.items() if name.startswith(PYTHON))
    return Run(run.seconds, {PYTHON: own, **servers_only})
