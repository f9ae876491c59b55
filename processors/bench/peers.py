"""`bench w1` … `w4`: the works that other engines were measured at, from the outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from processors.bench import servers
from processors.bench.deployed import Deployed, How, deployed
from processors.bench.drive import Driver, heads_of
from processors.bench.measure import measured
from processors.bench.options import (
    REPEAT,
    DatabaseUrl,
    Existing,
    Json,
    Partitions,
    RedisUrl,
    Repeat,
    Workers,
)
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.bench.works import WORKS, Round, Work
from processors.cli.exits import explained, run
from streams.partition import PARTITIONS_DEFAULT

ROUND_S_MAX = 120.0
SETTLE_S = 0.2  # between rounds: what the last one left behind is not the next one's


def works(
    workers: Workers = 1,
    existing: Existing = False,
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Measure w1, w1-idle, w2, w3 and w4, on one deployment.

    Example:  orchestrator bench works --repeat 5
    """
    how = How(workers=0 if existing else workers)
    with explained(as_json), servers.place(database_url, redis_url) as place:
        report = run(lambda: measure(place, WORKS, how, None, repeat, partitions), as_json=as_json)
        show(report, as_json)


def command_for(work: Work) -> Callable[..., None]:
    """The command that measures one piece of work."""

    def measure_work(
        executions: Annotated[int, typer.Option(min=1, help="How many.")] = work.executions,
        workers: Workers = 1,
        existing: Existing = False,
        partitions: Partitions = PARTITIONS_DEFAULT,
        repeat: Repeat = REPEAT,
        database_url: DatabaseUrl = None,
        redis_url: RedisUrl = None,
        as_json: Json = False,
    ) -> None:
        how = How(workers=0 if existing else workers)
        with explained(as_json), servers.place(database_url, redis_url) as place:
            report = run(
                lambda: measure(place, [work], how, executions, repeat, partitions),
                as_json=as_json,
            )
            show(report, as_json)

    measure_work.__name__ = work.name
    measure_work.__doc__ = f"""Measure {work.about}.

    Example:  orchestrator bench {work.name} --repeat 5
    """
    return measure_work


async def measure(
    place: servers.Place,
    wanted: Sequence[Work],
    how: How,
    executions: int | None,
    repeat: int,
    partitions: int,
) -> Report:
    """So many rounds of each after one to warm up, on one deployment."""
    machine, warnings = await servers.described(place)
    sizes = {work.name: executions or work.executions for work in wanted}
    settings: dict[str, Any] = {work.name: work.about for work in wanted}
    settings |= {"executions": sizes, "repeat": repeat, "partitions": partitions}
    settings["workers"] = how.workers or "existing"
    report = Report("works", settings, machine, warnings=warnings)
    async with (
        servers.target(place, partitions, existing=not how.workers) as addresses,
        deployed(addresses, how) as engine,
    ):
        for work in wanted:
            report.figures += await figures_of(engine, place, work, sizes[work.name], repeat)
    return report


async def figures_of(
    engine: Deployed, place: servers.Place, work: Work, executions: int, repeat: int
) -> list[Figure]:
    """The work's own figures, and the CPU of each process by task."""
    driver = await engine.driver(work.document(engine.role))
    done = [await one_round(engine, place, driver, work, executions) for _ in range(repeat + 1)]
    rounds = done[1:]
    watched = {**engine.processes, **place.pids}
    runs, tasks = [one.run for one in rounds], rounds[0].tasks_in_all
    own = [replace(figure, name=f"{work.name}, {figure.name}") for figure in work.figures(rounds)]
    return [*own, *cpu_figures(work.name, watched, runs, tasks, "task")]


async def one_round(
    engine: Deployed, place: servers.Place, driver: Driver, work: Work, executions: int
) -> Round:
    """Submit, wait for every end, and make sure that nothing is missing."""
    heads = await heads_of(engine.client.log)
    await asyncio.sleep(SETTLE_S)
    with measured({**engine.processes, **place.pids}) as taken:
        async with asyncio.timeout(ROUND_S_MAX):
            trips = await work.submit(driver, executions)
    await driver.check(trips, heads)
    noted = await engine.notes.take([trip.execution_id for trip in trips], driver.tasks)
    return Round(taken, trips, noted, driver.tasks)


COMMANDS: tuple[Callable[..., None], ...] = (works, *map(command_for, WORKS))
