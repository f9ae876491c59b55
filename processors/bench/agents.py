"""`bench agents`: very many agents in one run, and what each interaction with one costs.

Hosts have many agents on few connections. All of them have a task at the same time once; then
tasks come by a schedule; and the same work is done with few and with many agents that wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any

import typer

from processors.bench import servers
from processors.bench.deployed import Deployed, How, deployed
from processors.bench.graphs import long_fan
from processors.bench.latency import CHAIN, scheduled
from processors.bench.measure import Run, measured
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.peers import one_round
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.bench.works import BY_NAME, Round, quantiles
from processors.cli.exits import Failed, explained, run
from streams.partition import PARTITIONS_DEFAULT

AGENTS = 10_000
FEW = 10
HOSTS = 4
RATE = 1_000
SECONDS = 10.0
OVERHEAD_MS_MAX = 10.0  # of 99 in 100 hops
FAN = 1_000  # tasks of each execution that keeps agents at work
LONG_S = 6.0  # long enough that the last agent begins before the first ends
REGISTERED = "SELECT count(*) FROM events WHERE type = 'AgentRegistered'"
REGISTER_S_MAX = 120.0
POLL_S = 0.1
QUIET_S = 5.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    agents: int = AGENTS
    hosts: int = HOSTS
    rate: float = RATE
    seconds: float = SECONDS
    long_s: float = LONG_S
    quiet_s: float = QUIET_S
    fan: int = FAN
    executions: int = BY_NAME["w1"].executions


def agents(
    number: Annotated[int, typer.Option("--agents", min=1, help="How many.")] = AGENTS,
    hosts: Annotated[int, typer.Option(min=1, help="How many share them.")] = HOSTS,
    rate: Annotated[int, typer.Option(min=CHAIN, help="Tasks a second, by a schedule.")] = RATE,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long.")] = SECONDS,
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Measure 10,000 agents: at work at once, evenly used, quickly reached, and cheap while idle.

    Example:  orchestrator bench agents --agents 2000 --rate 500
    """
    sizes = Sizes(number, hosts, rate, seconds)
    with explained(as_json), servers.place(database_url, redis_url) as place:
        report = run(lambda: measure(place, sizes, repeat, partitions), as_json=as_json)
        show(report, as_json)


async def measure(place: servers.Place, sizes: Sizes, repeat: int, partitions: int) -> Report:
    """First with few agents that wait beside the work, then with all."""
    machine, warnings = await servers.described(place)
    settings: dict[str, Any] = {"agents": sizes.agents, "hosts": sizes.hosts, "rate": sizes.rate}
    settings |= {"seconds": sizes.seconds, "repeat": repeat, "partitions": partitions}
    report = Report("agents", settings, machine, warnings=warnings)
    costs = {}
    for number in (min(FEW, sizes.agents), sizes.agents):
        how = How(agents=number, capacity=1 if number == sizes.agents else 100, hosts=sizes.hosts)
        async with (
            servers.target(place, partitions, existing=False) as addresses,
            deployed(addresses, how) as engine,
        ):
            await _registered(engine, number)
            idle, costs[number] = await waiting(engine, place, sizes, repeat)
            report.figures += idle_figures(number, idle, costs[number], engine, place)
            if number == sizes.agents:
                report.figures += await many(engine, place, sizes, repeat)
    few, all_ = costs[min(costs)], costs[max(costs)]
    ratios = [b / a for a, b in zip(_totals(few), _totals(all_), strict=True)]
    report.figures.append(Figure(f"CPU of a task, {sizes.agents:,} agents to {FEW}", "", ratios))
    return report


async def _registered(engine: Deployed, number: int) -> None:
    """Every agent is known to the engine."""
    async with asyncio.timeout(REGISTER_S_MAX):
        while await engine.client.pool.fetchval(REGISTERED) < number:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)


async def waiting(
    engine: Deployed, place: servers.Place, sizes: Sizes, repeat: int
) -> tuple[list[Run], list[Round]]:
    """What it costs when nothing is to be done; and the usual work beside those that wait."""
    work = BY_NAME["w1"]
    driver = await engine.driver(work.document(engine.role))
    await one_round(engine, place, driver, work, sizes.executions)
    idle = []
    for _ in range(repeat):
        with measured({**engine.processes, **place.pids}) as taken:
            await asyncio.sleep(sizes.quiet_s)
        idle.append(taken)
    rounds = [await one_round(engine, place, driver, work, sizes.executions) for _ in range(repeat)]
    return idle, rounds


def idle_figures(
    number: int,
    idle: Sequence[Run],
    rounds: Sequence[Round],
    engine: Deployed,
    place: servers.Place,
) -> list[Figure]:
    watched = {**engine.processes, **place.pids}
    resting = [
        Figure(
            f"{number:,} agents idle, CPU of {process}",
            "ms/s",
            [run.cpu[process] / run.seconds * 1_000 for run in idle if process in run.cpu],
        )
        for process in watched
    ]
    runs, tasks = [one.run for one in rounds], rounds[0].tasks_in_all
    return resting + cpu_figures(f"{number:,} agents", watched, runs, tasks, "task")


def _totals(rounds: Sequence[Round]) -> list[float]:
    return [sum(one.run.cpu.values()) / one.tasks_in_all for one in rounds]


async def many(engine: Deployed, place: servers.Place, sizes: Sizes, repeat: int) -> list[Figure]:
    """All at work at once, and then a schedule that all of them share."""
    peaks = [await together(engine, place, sizes) for _ in range(repeat)]
    work = scheduled(sizes.rate / CHAIN)
    executions = max(1, round(sizes.seconds * sizes.rate / CHAIN))
    driver = await engine.driver(work.document(engine.role))
    rounds = [await one_round(engine, place, driver, work, executions) for _ in range(repeat)]
    shares = [_spread(one, sizes.agents) for one in rounds]
    name, bars = f"{sizes.rate:,}/s", {0.5: None, 0.99: None}
    hops = [one.first_ms() + one.steps_ms() for one in rounds]
    return [
        Figure("agents at work at once", "agents", peaks, at_least=sizes.agents),
        *quantiles(f"{name}, submit to first task", [one.first_ms() for one in rounds], bars),
        *quantiles(f"{name}, answer to next task", [one.steps_ms() for one in rounds], bars),
        *quantiles(f"{name}, both", hops, {0.5: None, 0.99: OVERHEAD_MS_MAX, 0.999: None}),
        Figure(f"{name}, tasks an agent, mean", "tasks", [fmean(one) for one in shares]),
        Figure(f"{name}, tasks an agent, fewest", "tasks", [min(one) for one in shares]),
        Figure(f"{name}, tasks an agent, most", "tasks", [max(one) for one in shares]),
    ]


async def together(engine: Deployed, place: servers.Place, sizes: Sizes) -> int:
    """How many agents had a task at the same moment, when there was one for each."""
    fan = min(sizes.fan, sizes.agents)
    executions = sizes.agents // fan
    driver = await engine.driver(long_fan(fan, engine.role, sizes.long_s))
    done = await one_round(engine, place, driver, BY_NAME["w4"], executions)
    begun = [moment for tasks in done.taken.values() for _, moment in tasks.values()]
    changes = [(at, 1) for at in begun] + [(at + int(sizes.long_s * 1e9), -1) for at in begun]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    busy = {agent for tasks in done.taken.values() for agent, _ in tasks.values()}
    if most > len(busy):
        raise Failed("An agent had two tasks at once that does one at a time.")
    return most


def _spread(done: Round, agents: int) -> list[int]:
    """How many tasks each agent got."""
    counts = Counter(agent for tasks in done.taken.values() for agent, _ in tasks.values())
    return [counts[number] for number in range(agents)]
