"""`bench memory`: what an execution under way keeps in memory, of processes and of its state."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Annotated, Any

import typer

from processors import commands
from processors.bench import servers
from processors.bench.deployed import Deployed, How, deployed
from processors.bench.drive import Driver
from processors.bench.graphs import half_done
from processors.bench.options import REPEAT, DatabaseUrl, Json, Partitions, RedisUrl, Repeat
from processors.bench.projection import caught_up
from processors.bench.report import Figure, Report, show
from processors.cli.exits import Failed, explained, run
from processors.history import folded
from streams.partition import PARTITIONS_DEFAULT

TASKS = 1_000
EXECUTIONS = 50
BYTES_MAX = 50_000_000  # of one workflow under way
WATCHED = ("engine", "projector", "agents")
READY_S_MAX = 120.0
POLL_S = 0.05
COUNT = "SELECT count(*) FROM events WHERE type = 'TaskScheduled' AND subject = ANY($1)"
CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def memory(
    tasks: Annotated[int, typer.Option(min=2, help="Of each execution.")] = TASKS,
    executions: Annotated[int, typer.Option(min=1, help="How many more, each time.")] = EXECUTIONS,
    partitions: Partitions = PARTITIONS_DEFAULT,
    repeat: Repeat = REPEAT,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Measure memory by execution under way: half of its tasks are done, half wait for an agent.

    Example:  orchestrator bench memory --executions 200
    """
    with explained(as_json), servers.place(database_url, redis_url) as place:
        report = run(lambda: measure(place, tasks, executions, repeat, partitions), as_json=as_json)
        show(report, as_json)


async def measure(
    place: servers.Place, tasks: int, executions: int, repeat: int, partitions: int
) -> Report:
    """More and more executions: of one workflow, and each of a workflow of its own."""
    machine, warnings = await servers.described(place)
    settings = {"tasks": tasks, "executions": executions, "repeat": repeat}
    report = Report("memory", settings | {"partitions": partitions}, machine, warnings=warnings)
    async with (
        servers.target(place, partitions, existing=False) as addresses,
        deployed(addresses, How()) as engine,
    ):
        for name, own in (("one workflow", False), ("workflows of their own", True)):
            report.figures += await growth(engine, name, tasks, executions, repeat, own=own)
    return report


async def growth(
    engine: Deployed, name: str, tasks: int, executions: int, repeat: int, *, own: bool
) -> list[Figure]:
    """What each process grows by with an execution, after some to warm up; and its state's size."""
    document = half_done(tasks, engine.role)
    driver = await engine.driver(document)
    grown: dict[str, list[float]] = {process: [] for process in WATCHED}
    started: list[str] = []
    for number in range(repeat + 1):
        before = {process: resident(engine.supervisor.pids[process]) for process in WATCHED}
        started = await _start(engine, driver, document, executions, own=own)
        after = {process: resident(engine.supervisor.pids[process]) for process in WATCHED}
        for process in WATCHED if number else ():
            grown[process].append((after[process] - before[process]) / executions / 1000)
    state = [await state_bytes(engine, execution) / 1000 for execution in started[:1]]
    figures = [
        Figure(f"{name}, {process} grows by", "kB", sizes, at_most=BYTES_MAX / 1000)
        for process, sizes in grown.items()
    ]
    return [*figures, Figure(f"{name}, its state as objects", "kB", state)]


async def _start(
    engine: Deployed, driver: Driver, document: dict[str, Any], executions: int, *, own: bool
) -> list[str]:
    """Start executions, and wait until each has come as far as it can."""
    workflows = [driver.workflow_id] * executions
    if own:
        workflows = [(await engine.driver(document)).workflow_id for _ in range(executions)]
    starts = [commands.start_execution(workflow) for workflow in workflows]
    await asyncio.gather(*(engine.client.call(start) for start in starts))
    subjects = [start.subject for start in starts]
    expected = executions * len(document["tasks"])
    async with asyncio.timeout(READY_S_MAX):
        while await engine.client.pool.fetchval(COUNT, subjects) < expected:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
    await caught_up(engine.client.log)
    return [start.root for start in starts]


def resident(pid: int) -> int:
    """The bytes of a process that are in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Failed(f"The process {pid} has ended.")


async def state_bytes(engine: Deployed, execution: str) -> int:
    """The state that the decider keeps, without the plan that all executions share."""
    found = None
    async for _, state in folded(engine.client.log, execution):
        found = state
    if found is None:
        raise Failed(f"There is no execution {execution}.")
    return deep_bytes(found, without=[found.plan])


def deep_bytes(root: object, without: Iterable[object] = ()) -> int:
    """All that is reached from here and is not code, each object once."""
    seen = {id(one) for one in without}
    total, left = 0, [root]
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, CODE):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        left += gc.get_referents(one)
    return total
