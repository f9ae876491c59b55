"""`bench capacity`: µs of CPU by component, what follows for large rates, and whether it holds.

The model: a component needs its µs per event times the events per second, in cores; a process of
ours or Redis has at most one core, PostgreSQL and all together those of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Annotated, Any

import typer

from processors.bench import servers
from processors.bench.deployed import How, deployed
from processors.bench.drive import heads_of
from processors.bench.graphs import chain
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.peers import one_round
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.bench.works import BY_NAME, Round
from processors.cli.exits import explained, run
from streams.partition import PARTITIONS_DEFAULT

EXECUTIONS = 500
CHAIN = 10
RATES = (100_000, 1_000_000)
WORKERS = (1, 2)
CONSTANT_MIN = 0.9  # events by CPU second of the workers, of two to those of one
ENGINE = "engine"


def capacity(
    executions: Annotated[int, typer.Option(min=1, help="Of 10 tasks, at once.")] = EXECUTIONS,
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Model how many cores a rate needs, from one worker, and check it with one and with two.

    Example:  orchestrator bench capacity --repeat 5
    """
    with explained(as_json), servers.place(database_url, redis_url) as place:
        report = run(lambda: measure(place, executions, repeat, partitions), as_json=as_json)
        show(report, as_json)


async def measure(place: servers.Place, executions: int, repeat: int, partitions: int) -> Report:
    """The same load on one worker and on two."""
    machine, warnings = await servers.described(place)
    settings = {"executions": executions, "tasks of each": CHAIN, "repeat": repeat}
    report = Report("capacity", settings | {"partitions": partitions}, machine, warnings=warnings)
    work = replace(BY_NAME["w4"], document=lambda role: chain(CHAIN, role))
    found: dict[int, list[tuple[Round, int]]] = {}
    for workers in WORKERS:
        async with (
            servers.target(place, partitions, existing=False) as addresses,
            deployed(addresses, How(workers=workers)) as engine,
        ):
            driver = await engine.driver(work.document(engine.role))
            rounds = found[workers] = []
            for _ in range(repeat + 1):
                before = sum((await heads_of(engine.client.log)).values())
                done = await one_round(engine, place, driver, work, executions)
                rounds.append((done, sum((await heads_of(engine.client.log)).values()) - before))
            found[workers] = rounds[1:]
    report.figures = figures(found, machine["cores"])
    return report


def figures(found: Mapping[int, Sequence[tuple[Round, int]]], cores: int) -> list[Figure]:
    """Costs, cores by rate, and measured rates beside those of the model."""
    made: list[Figure] = []
    costs = cost_of([*found[min(found)]])
    for workers, rounds in found.items():
        runs, events = [one.run for one, _ in rounds], rounds[0][1]
        name = f"{workers} worker{'s' if workers > 1 else ''}"
        rates = [count / one.seconds for one, count in rounds]
        model = rate_of(costs, workers, cores)
        made += [
            Figure(f"{name}, measured", "events/s", rates),
            Figure(f"{name}, by the model", "events/s", [model]),
            Figure(f"{name}, measured to model", "", [rate / model for rate in rates]),
            *cpu_figures(name, runs[0].cpu, runs, events),
        ]
    few, many = found[min(found)], found[max(found)]
    base = median(_by_cpu_second(few))
    made.append(
        Figure(
            "events by CPU second of workers, two to one",
            "",
            [one / base for one in _by_cpu_second(many)],
            at_least=CONSTANT_MIN,
        )
    )
    for rate in RATES:
        needed = {part: rate * cost / 1e6 for part, cost in costs.items()}
        made += [Figure(f"{rate:,} events/s, {part}", "cores", [n]) for part, n in needed.items()]
        made.append(Figure(f"{rate:,} events/s, all", "cores", [sum(needed.values())]))
    return made


def cost_of(rounds: Sequence[tuple[Round, int]]) -> dict[str, float]:
    """µs of CPU per event by component; the worker processes are one."""
    parts: dict[str, list[float]] = {}
    for one, events in rounds:
        sums: dict[str, float] = {}
        for process, seconds in one.run.cpu.items():
            part = ENGINE if process.startswith(ENGINE) else process
            sums[part] = sums.get(part, 0.0) + seconds
        for part, seconds in sums.items():
            parts.setdefault(part, []).append(seconds / events * 1e6)
    return {part: median(costs) for part, costs in parts.items()}


def rate_of(costs: Mapping[str, float], workers: int, cores: int) -> float:
    """The events a second at which the first thing is used up: a process' core, or all cores."""
    limits = [cores * 1e6 / sum(costs.values())]
    for part, cost in costs.items():
        of_it = workers if part == ENGINE else cores if part == servers.POSTGRES else 1
        limits.append(min(of_it, cores) * 1e6 / cost if cost else float("inf"))
    return min(limits)


def _by_cpu_second(rounds: Sequence[tuple[Round, int]]) -> list[float]:
    """Events by second of CPU of all worker processes."""
    found: list[Any] = []
    for one, events in rounds:
        spent = sum(s for process, s in one.run.cpu.items() if process.startswith(ENGINE))
        found.append(events / max(spent, 1e-3))
    return found
