"""`bench replay`: how fast history is folded and how fast it is verified, on one core."""

from __future__ import annotations

from typing import Annotated

import typer

from processors.bench import servers
from processors.bench.copies import append_copies, template
from processors.bench.deployed import How, deployed
from processors.bench.graphs import fan_and_join
from processors.bench.measure import OURSELVES, Run, measured
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.peers import one_round
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.bench.works import BY_NAME
from processors.cli.exits import Failed, explained, run
from processors.history import folded
from streams import chain
from streams.logs.postgres import PostgresLog
from streams.partition import PARTITIONS_DEFAULT

TASKS = 10_000
EVENTS = 300_000
FOLD_MIN, VERIFY_MIN = 100_000.0, 200_000.0  # events a second, on one core
HERE = "python"


def replay(
    tasks: Annotated[int, typer.Option(min=1, help="Of the execution to fold.")] = TASKS,
    events: Annotated[int, typer.Option(min=1, help="How many to verify.")] = EVENTS,
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Fold one large execution from its events, and verify a log's chain of hashes.

    Example:  orchestrator bench replay --tasks 1000
    """
    with explained(as_json), servers.place(database_url, redis_url) as place:
        report = run(lambda: measure(place, tasks, events, repeat, partitions), as_json=as_json)
        show(report, as_json)


async def measure(
    place: servers.Place, tasks: int, events: int, repeat: int, partitions: int
) -> Report:
    """Once to warm up, and so many times, in this process."""
    machine, warnings = await servers.described(place)
    settings = {"tasks": tasks, "events": events, "repeat": repeat, "partitions": partitions}
    report = Report("replay", settings, machine, warnings=warnings)
    async with servers.target(place, partitions, existing=False) as addresses:
        async with deployed(addresses, How()) as engine:
            large = await engine.driver(fan_and_join(tasks, engine.role))
            work = BY_NAME["w2"]
            execution = (await one_round(engine, place, large, work, 1)).trips[0].execution_id
            small = await engine.driver(BY_NAME["w1"].document(engine.role))
            example = (await one_round(engine, place, small, work, 1)).trips[0].execution_id
        log = PostgresLog(addresses.database_url, 2)
        await log.open()
        try:
            await append_copies(log, await template(log, example), events)
            folds = [await fold(log, place, execution) for _ in range(repeat + 1)][1:]
            checks = [await verify(log, place) for _ in range(repeat + 1)][1:]
        finally:
            await log.close()
    for name, bar, done in (("fold", FOLD_MIN, folds), ("verify", VERIFY_MIN, checks)):
        runs, count = [one for one, _ in done], done[0][1]
        rates = [count / one.seconds for one in runs]
        report.figures.append(Figure(name, "events/s", rates, at_least=bar))
        report.figures += cpu_figures(name, [HERE, *place.pids], runs, count)
    return report


async def fold(log: PostgresLog, place: servers.Place, execution: str) -> tuple[Run, int]:
    """One execution's state after each of its events."""
    count, status = 0, "nothing"
    with measured({HERE: OURSELVES, **place.pids}) as taken:
        async for _, state in folded(log, execution):
            count, status = count + 1, state.status
    if status != "completed":
        raise Failed(f"The execution folds to {status}; it has completed.")
    return taken, count


async def verify(log: PostgresLog, place: servers.Place) -> tuple[Run, int]:
    """The chains of all partitions."""
    with measured({HERE: OURSELVES, **place.pids}) as taken:
        reports = await chain.verify_all(log, range(await log.partitions()))
    if broken := [report for report in reports if not report.ok]:
        raise Failed(f"Partition {broken[0].partition} is damaged: {broken[0].reason}.")
    return taken, sum(report.events for report in reports)
