"""`bench latency`: arrivals on a fixed schedule, at several rates; nothing waits for an answer.

What comes late counts from the moment when it was due, so a stall is seen by all that it delays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from processors.bench import servers
from processors.bench.deployed import Deployed, How, deployed
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
from processors.bench.peers import one_round
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.bench.works import BY_NAME, Round, Work, quantiles
from processors.cli.exits import explained, run
from streams.partition import PARTITIONS_DEFAULT

RATES = (100, 500, 1_000, 2_000, 5_000)
SECONDS = 5.0
CHAIN = 10  # tasks of each workflow, one after another
SHARES = {0.5: None, 0.9: None, 0.99: None, 0.999: None}


def latency(
    rate: Annotated[list[int], typer.Option(min=CHAIN, help="Tasks a second.")] = [*RATES],  # noqa: B006
    seconds: Annotated[float, typer.Option(min=0.1, help="How long, at each rate.")] = SECONDS,
    workers: Workers = 1,
    existing: Existing = False,
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Measure latencies under load that comes by a schedule: workflows of 10 tasks in a row.

    Example:  orchestrator bench latency --rate 1000 --seconds 20
    """
    how = How(workers=0 if existing else workers)
    with explained(as_json), servers.place(database_url, redis_url) as place:
        report = run(
            lambda: measure(place, how, rate, seconds, repeat, partitions), as_json=as_json
        )
        show(report, as_json)


async def measure(
    place: servers.Place,
    how: How,
    rates: Sequence[int],
    seconds: float,
    repeat: int,
    partitions: int,
) -> Report:
    """Each rate so many times, after once to warm up at the lowest."""
    machine, warnings = await servers.described(place)
    settings: dict[str, Any] = {"tasks a workflow": CHAIN, "seconds": seconds, "repeat": repeat}
    settings |= {"workers": how.workers or "existing", "partitions": partitions}
    report = Report("latency", settings, machine, warnings=warnings)
    async with (
        servers.target(place, partitions, existing=not how.workers) as addresses,
        deployed(addresses, how) as engine,
    ):
        await at_rate(engine, place, min(rates), seconds)
        for rate in rates:
            rounds = [await at_rate(engine, place, rate, seconds) for _ in range(repeat)]
            watched = {**engine.processes, **place.pids}
            runs, tasks = [one.run for one in rounds], rounds[0].tasks_in_all
            report.figures += figures(f"{rate:,}/s", rounds)
            report.figures += cpu_figures(f"{rate:,}/s", watched, runs, tasks, "task")
    return report


async def at_rate(engine: Deployed, place: servers.Place, rate: float, seconds: float) -> Round:
    """One stretch of arrivals: workflows of ten tasks, so many tasks a second."""
    work = scheduled(rate / CHAIN)
    driver = await engine.driver(work.document(engine.role))
    return await one_round(engine, place, driver, work, max(1, round(seconds * rate / CHAIN)))


def scheduled(a_second: float) -> Work:
    """Chains of ten tasks that come by a schedule."""
    return replace(
        BY_NAME["w1"], submit=lambda driver, executions: driver.scheduled(executions, a_second)
    )


def figures(name: str, rounds: Sequence[Round]) -> list[Figure]:
    """How long everything took that was due."""
    return [
        *quantiles(f"{name}, submit to first task", [one.first_ms() for one in rounds], SHARES),
        *quantiles(f"{name}, answer to next task", [one.steps_ms() for one in rounds], SHARES),
        *quantiles(
            f"{name}, submit to end", [[trip.ms for trip in one.trips] for one in rounds], SHARES
        ),
        Figure(f"{name}, done", "tasks/s", [one.tasks_in_all / one.seconds for one in rounds]),
    ]
