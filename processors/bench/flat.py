"""`bench flat`: what an event costs must not grow, neither with the log nor with an execution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Annotated

import typer

from processors.bench import servers
from processors.bench.copies import append_copies, template
from processors.bench.deployed import Deployed, How, deployed
from processors.bench.graphs import fan_out
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.peers import one_round
from processors.bench.projection import caught_up
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.bench.works import BY_NAME, Round, Work
from processors.cli.exits import explained, run
from processors.settings import Addresses
from streams.logs.postgres import PostgresLog
from streams.partition import PARTITIONS_DEFAULT

PRELOAD = 1_000_000
GROWTH_MAX = 1.1
TASKS = 10_000
SHARE = 100  # the same number of tasks, in so many executions
AT_ONCE = 1_000  # tasks in flight, either way


def flat(
    preload: Annotated[int, typer.Option(min=1, help="Events that are there before.")] = PRELOAD,
    tasks: Annotated[int, typer.Option(min=SHARE, help="Of the large execution.")] = TASKS,
    executions: Annotated[int, typer.Option(min=1, help="Of `w4`, for the log.")] = 1_000,
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Compare CPU by task: an empty log and a long one, many small executions and a large one.

    Example:  orchestrator bench flat --preload 200000
    """
    with explained(as_json), servers.place(database_url, redis_url) as place:
        report = run(
            lambda: measure(place, preload, tasks, executions, repeat, partitions), as_json=as_json
        )
        show(report, as_json)


async def measure(
    place: servers.Place, preload: int, tasks: int, executions: int, repeat: int, partitions: int
) -> Report:
    """On one database: empty, with executions of two sizes, then with a long history as well."""
    machine, warnings = await servers.described(place)
    settings = {"preload": preload, "tasks": tasks, "executions": executions, "repeat": repeat}
    report = Report("flat", settings | {"partitions": partitions}, machine, warnings=warnings)
    work = BY_NAME["w4"]
    async with servers.target(place, partitions, existing=False) as addresses:
        async with deployed(addresses, How()) as engine:
            empty = await rounds_of(engine, place, work, executions, repeat)
            small = await rounds_of(engine, place, wide(tasks // SHARE, SHARE), SHARE, repeat)
            large = await rounds_of(engine, place, wide(tasks, 1), 1, repeat)
        await _lengthen(addresses, empty[0].trips[0].execution_id, preload)
        async with deployed(addresses, How()) as engine:
            await caught_up(engine.client.log)
            full = await rounds_of(engine, place, work, executions, repeat)
    many, share = f"{preload:,} events before", tasks // SHARE
    report.figures = [
        *compared("log empty", empty, many, full),
        *compared(f"{SHARE} of {share:,} tasks", small, f"1 of {tasks:,} tasks", large),
    ]
    return report


def wide(tasks: int, executions: int) -> Work:
    """Executions of tasks that wait for nothing, with as many in flight over all of them."""
    at_once = max(1, AT_ONCE // executions)
    return replace(BY_NAME["w4"], document=lambda role: fan_out(tasks, at_once, role))


async def rounds_of(
    engine: Deployed, place: servers.Place, work: Work, executions: int, repeat: int
) -> list[Round]:
    driver = await engine.driver(work.document(engine.role))
    done = [await one_round(engine, place, driver, work, executions) for _ in range(repeat + 1)]
    return done[1:]


async def _lengthen(addresses: Addresses, execution: str, events: int) -> None:
    log = PostgresLog(addresses.database_url, 2)
    await log.open()
    try:
        await append_copies(log, await template(log, execution), events)
    finally:
        await log.close()


def compared(
    first: str, rounds: Sequence[Round], second: str, later: Sequence[Round]
) -> list[Figure]:
    """CPU of a task by process, and what it is the second time by what it was the first."""
    made: list[Figure] = []
    for name, some in ((first, rounds), (second, later)):
        runs, tasks = [one.run for one in some], some[0].tasks_in_all
        made += cpu_figures(name, runs[0].cpu, runs, tasks, "task")
        made.append(Figure(f"{name}, CPU of all", "µs/task", _totals(some)))
    base = median(_totals(rounds))
    ratios = [total / base for total in _totals(later)]
    made.append(Figure(f"{second}, to {first}", "", ratios, at_most=GROWTH_MAX))
    return made


def _totals(rounds: Sequence[Round]) -> list[float]:
    return [sum(one.run.cpu.values()) / one.tasks_in_all * 1e6 for one in rounds]
