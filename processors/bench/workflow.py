"""`bench workflow`: one workflow, from submit to its end in the log, on the engine as deployed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer

from processors import commands
from processors.agents import AgentHost, register, simulated_agents
from processors.app import Worker
from processors.bench import servers
from processors.bench.deployed import READY_S_MAX, How, deployed
from processors.bench.drive import Driver, heads_of
from processors.bench.ends import Ends
from processors.bench.graphs import phased
from processors.bench.measure import OURSELVES, Run, measured
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.cli.exits import explained, run
from processors.cli.files import Source, read_sources
from processors.client import Client
from processors.settings import Addresses, Settings
from streams.partition import PARTITIONS_DEFAULT
from streams.transport import running

TASKS = 1_000
SECONDS_MAX = 1.0  # for 1,000 tasks on two cores
AGENTS_PER_ROLE = 10  # each does a hundred tasks at once
HERE = "python"


@dataclass(slots=True)
class Engine:
    """An engine that runs: how to reach it, and which processes to watch."""

    client: Client
    ends: Ends
    processes: Callable[[], dict[str, int | None]]


def workflow(
    file: Annotated[
        Path | None, typer.Argument(help="A workflow; without it, one like LIGO's is made.")
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks to make.")] = TASKS,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Engine, projector and agents in this process.")
    ] = False,
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Run one workflow with agents that answer at once, on processes as `up` starts them.

    Example:  orchestrator bench workflow ligo-inspiral-1000.json --repeat 5
    """
    with explained(as_json), servers.place(database_url, redis_url) as place:
        source = read_sources(str(file))[0] if file else made(tasks)
        report = run(
            lambda: measure(place, source, repeat, partitions, in_process), as_json=as_json
        )
        show(report, as_json)


def made(tasks: int) -> Source:
    """A workflow of this size."""
    document = phased(tasks)
    return Source(document["name"], orjson.dumps(document).decode(), "json")


async def measure(
    place: servers.Place, source: Source, repeat: int, partitions: int, in_process: bool
) -> Report:
    """Run the workflow so many times on the same servers, after once to warm up."""
    definition = source.check()
    tasks, roles = len(definition.tasks), sorted(definition.agents)
    machine, warnings = await servers.described(place)
    settings = {"workflow": source.label, "tasks": tasks, "repeat": repeat}
    settings |= {"partitions": partitions, "in_process": in_process}
    report = Report("workflow", settings, machine, warnings=warnings)
    start = _in_process if in_process else _deployed
    async with (
        servers.target(place, partitions, existing=False) as addresses,
        start(addresses, roles) as engine,
    ):
        create = commands.create_workflow(source=source.text, format=source.format)
        await engine.client.call(create, READY_S_MAX)
        driver = Driver(engine.client, engine.ends, create.root, tasks)
        await _execute(driver, {})
        watched = {**engine.processes(), **place.pids}
        done = [await _execute(driver, watched) for _ in range(repeat)]
    runs, events = [one for one, _ in done], done[0][1]
    bar = SECONDS_MAX if tasks == TASKS else None
    report.settings["events"] = events
    report.figures = [
        Figure("submit to completed", "s", [one.seconds for one in runs], at_most=bar),
        Figure("tasks", "tasks/s", [tasks / one.seconds for one in runs]),
        Figure("events", "events/s", [events / one.seconds for one in runs]),
        *cpu_figures("workflow", watched, runs, events),
    ]
    return report


async def _execute(driver: Driver, watched: dict[str, int | None]) -> tuple[Run, int]:
    """One execution: what it took until its end was in the log, and how many events it made."""
    before = await heads_of(driver.client.log)
    with measured(watched) as taken:
        trips = await driver.at_once(1, 1)
    await driver.check(trips, before)
    return taken, sum((await heads_of(driver.client.log)).values()) - sum(before.values())


@asynccontextmanager
async def _deployed(addresses: Addresses, roles: Sequence[str]) -> AsyncIterator[Engine]:
    """The engine's processes as `up` starts them, and the agents in another one."""
    how = How(agents=AGENTS_PER_ROLE * len(roles))
    async with deployed(addresses, how, roles) as engine:
        yield Engine(engine.client, engine.ends, lambda: engine.processes)


@asynccontextmanager
async def _in_process(addresses: Addresses, roles: Sequence[str]) -> AsyncIterator[Engine]:
    """Everything in this process."""
    worker = Worker(Settings(**addresses._asdict()))
    agents = simulated_agents(roles, per_role=AGENTS_PER_ROLE, factor=0.0)
    try:
        async with (
            running(worker.app()),
            Client(addresses) as client,
            Ends(client.log, client.bus) as ends,
            AgentHost(addresses.redis_url, agents, name="bench") as host,
        ):
            await register(host.bus, agents)
            yield Engine(client, ends, lambda: {HERE: OURSELVES})
    finally:
        await worker.close()
