"""`bench projection`: read models rebuilt from the log, and kept up with while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from processors.bench import servers
from processors.bench.copies import append_copies, template
from processors.bench.deployed import Deployed, How, deployed
from processors.bench.measure import Run, Stretch
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.peers import one_round
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.bench.works import BY_NAME
from processors.cli.exits import Failed, explained, run
from processors.local_engine import WORKERS
from processors.projector import TOPIC
from processors.settings import Addresses
from processors.supervisor import Supervisor
from projections import PROJECTIONS
from streams.log import WRITER
from streams.logs.postgres import PostgresLog
from streams.partition import PARTITIONS_DEFAULT

EVENTS = 200_000
RATE_MIN = 50_000.0  # events a second, rebuilt
PROJECTOR = "projector"
POLL_S = 0.02
REBUILD_S_MAX = 300.0
REACHED = """
SELECT (SELECT sum(position) FROM cursors WHERE consumer = $1) AS reached,
       (SELECT sum(position) FROM cursors WHERE consumer = $2) AS head
"""
OWNED = "SELECT EXISTS (SELECT FROM cursors WHERE consumer = $1 AND owner IS NOT NULL)"
FORGET = "UPDATE cursors SET position = 0 WHERE consumer = ANY($1::text[])"


def projection(
    events: Annotated[int, typer.Option(min=1, help="How many to rebuild from.")] = EVENTS,
    executions: Annotated[int, typer.Option(min=1, help="Of `w4`, to keep up with.")] = 1_000,
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Measure the projector: a rebuild of all read models, and its lag behind a log that grows.

    Example:  orchestrator bench projection --events 1000000
    """
    with explained(as_json), servers.place(database_url, redis_url) as place:
        report = run(
            lambda: measure(place, events, executions, repeat, partitions), as_json=as_json
        )
        show(report, as_json)


async def measure(
    place: servers.Place, events: int, executions: int, repeat: int, partitions: int
) -> Report:
    """Keeping up first, whose executions are then copied for the rebuild."""
    machine, warnings = await servers.described(place)
    settings = {"events": events, "executions": executions, "repeat": repeat}
    report = Report("projection", settings | {"partitions": partitions}, machine, warnings=warnings)
    async with servers.target(place, partitions, existing=False) as addresses:
        async with deployed(addresses, How()) as engine:
            lags, example = await _keeping_up(engine, place, executions, repeat)
        log = PostgresLog(addresses.database_url, 2)
        await log.open()
        try:
            await append_copies(log, await template(log, example), events)
            runs = [await rebuild(addresses, place, log) for _ in range(repeat)]
            if not all(one.events for one in runs):
                raise Failed("So few events are rebuilt before anyone looks; give more --events.")
        finally:
            await log.close()
    rates = [one.events / one.run.seconds for one in runs]
    report.figures = [
        Figure("rebuild", "events/s", rates, at_least=RATE_MIN),
        *cpu_figures("rebuild", runs[0].run.cpu, [one.run for one in runs], runs[0].events),
        Figure("keeping up, log grows by", "events/s", [one.rate for one in lags]),
        Figure("keeping up, most behind", "events", [one.most for one in lags]),
        Figure("keeping up, caught up after the end", "s", [one.after_s for one in lags]),
    ]
    return report


@dataclass(slots=True)
class Rebuilt:
    """One rebuild."""

    run: Run
    events: int


async def rebuild(addresses: Addresses, place: servers.Place, log: PostgresLog) -> Rebuilt:
    """Empty read models, and a projector from its first lease to the head of the log."""
    tables = ", ".join(sorted({table for one in PROJECTIONS for table in one.tables}))
    consumers = [TOPIC, *(one.consumer for one in PROJECTIONS)]
    async with log.pool.acquire() as connection, connection.transaction():
        await connection.execute(f"TRUNCATE {tables}")
        await connection.execute(FORGET, consumers)
    async with Supervisor(addresses.environment(), restarts_max=0) as supervisor:
        arguments = dict(WORKERS)[PROJECTOR]
        supervisor.start(PROJECTOR, *arguments)
        async with asyncio.timeout(REBUILD_S_MAX):
            while not await log.pool.fetchval(OWNED, TOPIC):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
            before, head = await _reached(log)
            stretch = Stretch({**supervisor.pids, **place.pids})
            await caught_up(log)
            return Rebuilt(stretch.end(), head - before)


async def caught_up(log: PostgresLog) -> None:
    """Wait until the read models have all that is in the log now."""
    _, head = await _reached(log)
    async with asyncio.timeout(REBUILD_S_MAX):
        await _until(log, more_than=head - 1)


async def _reached(log: PostgresLog) -> tuple[int, int]:
    """How far the projector and the log are, over all partitions."""
    row: Any = await log.pool.fetchrow(REACHED, TOPIC, WRITER)
    return int(row["reached"] or 0), int(row["head"] or 0)


async def _until(log: PostgresLog, more_than: int) -> tuple[int, int]:
    """How far the projector and the log are, once the projector is so far."""
    while True:
        reached, head = await _reached(log)
        if reached > more_than:
            return reached, head
        await asyncio.sleep(POLL_S)


@dataclass(slots=True)
class Lag:
    """How far a projector was behind while the log grew."""

    behind: list[int] = field(default_factory=list)
    rate: float = 0.0
    after_s: float = 0.0

    @property
    def most(self) -> int:
        """The most events that were committed and not in the read models."""
        return max(self.behind, default=0)


async def _keeping_up(
    engine: Deployed, place: servers.Place, executions: int, repeat: int
) -> tuple[list[Lag], str]:
    """So many measured rounds after one, and an execution that has completed."""
    work, lags, example = BY_NAME["w4"], [], ""
    driver = await engine.driver(work.document(engine.role))
    loop, log = asyncio.get_running_loop(), engine.client.log
    for number in range(repeat + 1):
        _, before = await _reached(log)
        lag = Lag()
        async with _watched(log, lag):
            done = await one_round(engine, place, driver, work, executions)
        ended = loop.time()
        _, head = await _reached(log)
        await caught_up(log)
        lag.after_s, lag.rate = loop.time() - ended, (head - before) / done.seconds
        example = done.trips[0].execution_id
        lags += [lag] if number else []
    return lags, example


@asynccontextmanager
async def _watched(log: PostgresLog, lag: Lag) -> AsyncIterator[None]:
    """Look again and again how far behind the projector is."""

    async def look() -> None:
        while True:
            reached, head = await _reached(log)
            lag.behind.append(head - reached)
            await asyncio.sleep(POLL_S)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
