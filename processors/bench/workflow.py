"""`bench workflow`: one workflow, from submit to its end in the log, on the engine as deployed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from processors import commands
from processors.agents import AgentHost, register, simulated_agents
from processors.app import Worker
from processors.bench import servers
from processors.bench.graphs import phased
from processors.bench.measure import OURSELVES, Run, children, measured
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.report import Figure, Report, cpu_figures, show
from processors.cli.exits import Failed, explained, run
from processors.cli.files import Source, read_sources
from processors.client import Client
from processors.local_engine import WORKERS, processes
from processors.settings import Addresses, Settings
from streams.codec import decode_event
from streams.partition import FIELD, PARTITIONS_DEFAULT, events_key
from streams.transport import running

TASKS = 1_000
SECONDS_MAX = 1.0  # for 1,000 tasks on two cores
AGENTS_PER_ROLE = 10  # each does a hundred tasks at once
WAIT_S_MAX = 120.0
POLL_S = 0.002
NEWEST = 5  # of the mirror: others may have written behind the end
AGENTS, CLIENT, HERE = "agents", "client", "python"
COUNT = "SELECT count(*) FROM events WHERE partition = $1 AND subject = $2 AND type = $3"
ENDS = {"ExecutionCompleted", "ExecutionFailed", "ExecutionCancelled"}


@dataclass(slots=True)
class Engine:
    """An engine that runs: how to reach it, and which processes to watch."""

    client: Client
    processes: dict[str, int | None]


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
    runs, events = [], 0
    async with servers.scratch(place, partitions) as addresses:
        start = _in_process if in_process else _deployed
        async with start(addresses, roles) as engine, asyncio.timeout(WAIT_S_MAX):
            create = commands.create_workflow(source=source.text, format=source.format)
            await engine.client.call(create)
            await _execute(engine, create.root, tasks, {})
            watched = {**_own(engine.processes), **place.pids}
            for _ in range(repeat):
                taken, events = await _execute(engine, create.root, tasks, watched)
                runs.append(taken)
    bar = SECONDS_MAX if tasks == TASKS else None
    report.settings["events"] = events
    report.figures = [
        Figure("submit to completed", "s", [one.seconds for one in runs], at_most=bar),
        Figure("tasks", "tasks/s", [tasks / one.seconds for one in runs]),
        Figure("events", "events/s", [events / one.seconds for one in runs]),
        *cpu_figures("workflow", watched, runs, events),
    ]
    return report


def _own(processes: dict[str, int | None]) -> dict[str, int | None]:
    """The processes with the ids that they have by now."""
    ids = {line.partition(" -m processors ")[2]: pid for pid, line in children().items()}
    wanted = {name: " ".join(arguments) for name, arguments in WORKERS}
    found = {name: ids.get(line) for name, line in wanted.items() if name in processes}
    agents = next((pid for line, pid in ids.items() if line.startswith(AGENTS)), None)
    return processes | found | ({AGENTS: agents} if AGENTS in processes else {})


async def _execute(
    engine: Engine, workflow_id: str, tasks: int, watched: dict[str, int | None]
) -> tuple[Run, int]:
    """One execution: what it took until its end was in the log, and how many events it made."""
    client, start = engine.client, commands.start_execution(workflow_id)
    with measured(watched) as taken:
        outcome = await client.call(start)
        last = await _end(client, outcome.partition, start.subject)
    done = await client.pool.fetchval(COUNT, outcome.partition, start.subject, "TaskCompleted")
    if done != tasks:
        raise Failed(f"{tasks:,} tasks should have completed; the log has {done:,}.")
    return taken, last - outcome.first + 1


async def _end(client: Client, partition: int, subject: str) -> int:
    """The position of the execution's last event, once it is in the mirror and so in the log."""
    key, mark = events_key(partition), b'"type":"Execution'
    while True:
        newest: Any = await client.bus.redis.xrevrange(key, count=NEWEST)
        for event in [decode_event(raw[FIELD]) for _, raw in newest if mark in raw[FIELD]]:
            if event.subject == subject and event.type in ENDS:
                if event.type != "ExecutionCompleted":
                    raise Failed(f"The execution ended otherwise: {event.type} {event.data}.")
                return event.position
        await asyncio.sleep(POLL_S)


@asynccontextmanager
async def _deployed(addresses: Addresses, roles: list[str]) -> AsyncIterator[Engine]:
    """The engine's processes as `up` starts them, and the agents in another one."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(orjson.dumps(roles))
        file.flush()
        pool = ("agents", "--roles", file.name, "--per-role", str(AGENTS_PER_ROLE))
        settings = Settings(**addresses._asdict())
        names: dict[str, int | None] = {name: None for name, _ in (*WORKERS, (AGENTS, pool))}
        async with (
            processes(settings, addresses, more=[(AGENTS, pool)]),
            Client(addresses) as client,
        ):
            yield Engine(client, {**names, CLIENT: OURSELVES})


@asynccontextmanager
async def _in_process(addresses: Addresses, roles: list[str]) -> AsyncIterator[Engine]:
    """Everything in this process."""
    worker = Worker(Settings(**addresses._asdict()))
    agents = simulated_agents(roles, per_role=AGENTS_PER_ROLE, factor=0.0)
    try:
        async with (
            running(worker.app()),
            Client(addresses) as client,
            AgentHost(addresses.redis_url, agents, name="bench") as host,
        ):
            await register(host.bus, agents)
            yield Engine(client, {HERE: OURSELVES})
    finally:
        await worker.close()
