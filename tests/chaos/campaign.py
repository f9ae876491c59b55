"""One chaos run: load, harm, quiet, convergence, check; and what it has to say for itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg

from processors.client import Client
from tests.chaos import checker
from tests.chaos.checker_executions import violations
from tests.chaos.counters import Seen
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.ground import Ground, Servers, ground
from tests.chaos.load import Load
from tests.chaos.nemesis import Nemesis
from tests.system import read_models

CONVERGENCE_S = 10.0
PATIENCE_S = 60.0  # to say how late it was, where it was too late
DRAIN_S = 25.0  # what a dead worker had read from the inbox is claimed after ten
LOOK_S = 0.1
BACK_S = 1_800.0  # from one event of a partition to the next
ROUNDS_MAX = 8  # of all actions, until there were enough executions

LAGGING = """
SELECT reader.consumer, head.partition, reader.position, head.position
FROM cursors AS head JOIN cursors AS reader USING (partition)
WHERE head.consumer = 'commands' AND reader.consumer <> 'commands' AND reader.consumer !~ '@'
  AND head.position > reader.position
"""


LOGGED = {
    "TaskFailed": "failed attempts",
    "TaskTimedOut": "time-outs",
    "TaskTakenOver": "tasks taken over by answer",
    "TaskCompensated": "tasks undone",
    "CompensationParked": "compensations parked",
    "CompensationFailed": "failed compensations",
    "InputRequested": "asked for input",
    "ExecutionRetried": "executions retried",
    "ExecutionPaused": "executions paused",
    "ExecutionCancelled": "executions cancelled",
}
REFUSALS = {
    "LATE_ANSWER": "late answers refused",
    "NOT_YOURS": "late answers refused",
    "UNKNOWN_EXECUTION": "reordered commands refused",
    "EXECUTION_ENDED": "reordered commands refused",
    "FOREIGN_TENANT": "foreign answers refused",
}
"""What the log has of it, by the words of `counters`."""


@dataclass
class Report:
    """What a run came to."""

    seed: int
    executions: int = 0
    seconds: float = 0.0
    converged_s: float = 0.0
    seen: Seen = field(default_factory=Seen)
    wrong: list[str] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {
                "seed": self.seed,
                "executions": self.executions,
                "seconds": round(self.seconds, 1),
                "converged_s": round(self.converged_s, 1),
                "violations": self.wrong,
                **self.figures,
                "seen": dict(sorted((name, n) for name, n in self.seen.items() if n)),
            }
        )


class Epochs:
    """Which epochs were seen, and after how many commits: no commit after that may be older."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self._known: dict[int, int] = {}

    async def watch(self, on: Ground) -> None:
        """Look at the writers' cursors, until cancelled; an outage is waited for."""
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with on.database() as database:
                    while True:
                        await self.look(database)
                        await asyncio.sleep(LOOK_S)
            await asyncio.sleep(LOOK_S)

    async def look(self, database: asyncpg.Connection) -> None:
        """Once."""
        for partition, epoch, commits in await database.fetch(
            "SELECT partition, epoch, commits FROM cursors WHERE consumer = 'commands'"
        ):
            if self._known.get(partition) != epoch:
                self._known[partition] = epoch
                self.seen.append((partition, epoch, commits))


@dataclass
class Scene:
    """A ground, a fleet, a load through the proxies, and somebody who watches the epochs."""

    ground: Ground
    fleet: Fleet
    load: Load
    client: Client
    epochs: Epochs
    directory: Path


@asynccontextmanager
async def scene(
    on: Servers, seed: int, *, workers: int = 3, hosts: int = 2, lease_s: float = 1.0
) -> AsyncIterator[Scene]:
    """Everything runs and the workflows are known."""
    with tempfile.TemporaryDirectory(prefix="agentcore-chaos-") as name:
        directory = Path(name)
        async with ground(on) as made, fleet(made, lease_s=lease_s) as those:
            for _ in range(workers):
                await those.worker()
            for _ in range(hosts):
                await those.host()
            async with Client(made.addresses, actor=checker.CLIENT) as client:
                load, epochs = Load(client, directory, seed), Epochs()
                watching = [
                    asyncio.create_task(load.follow(made.database)),
                    asyncio.create_task(epochs.watch(made)),
                ]
                try:
                    yield Scene(made, those, load, client, epochs, directory)
                finally:
                    for task in watching:
                        task.cancel()
                    await asyncio.gather(*watching, return_exceptions=True)
                    await load.close()


async def campaign(
    on: Servers, seed: int, executions: int, share: tuple[int, int] = (0, 1), rounds: int = 1
) -> Report:
    """One seed's run with one share of all actions, so many times over."""
    begun, report = monotonic(), Report(seed)
    async with scene(on, seed) as at:
        await at.load.prepare(large=1)
        nemesis, quiet = Nemesis(at.ground, at.fleet, seed), asyncio.Event()
        loading = asyncio.create_task(at.load.run(quiet))
        for turn in range(ROUNDS_MAX):
            if turn >= rounds and len(at.load.runs) >= executions:
                break
            await nemesis.run(nemesis.plan(*share))
        quiet.set()
        await loading
        await check(at, report)
        report.seen.update(nemesis.seen)
        report.seen["replies lost"] += 0
        report.journal = nemesis.journal
        report.figures |= {"actions": len(nemesis.journal), "load": dict(at.load.counted)}
    report.seconds = monotonic() - begun
    return report


async def check(at: Scene, report: Report) -> None:
    """Quiet; wait until all have ended and everybody has read everything; then prove it."""
    at.ground.heal()
    begun = monotonic()
    waited_for = ["the first look"]
    while waited_for and monotonic() - begun < PATIENCE_S:
        await asyncio.sleep(LOOK_S)
        waited_for = [run.execution_id for run in at.load.open] + [*at.load.asking]
        waited_for += await _lagging(at.ground)
    report.converged_s = monotonic() - begun
    if report.converged_s > CONVERGENCE_S:
        last = "; ".join(waited_for[: checker.SAID_MAX])
        report.wrong.append(f"I15 converges: only after {report.converged_s:.1f} s, {last}")
    report.wrong += await _bounded(at.ground)
    report.executions = len(at.load.runs)
    report.seen.update(at.fleet.seen())
    report.figures["resources"] = {c.name: c.resources() for c in at.fleet.workers}
    async with at.ground.database() as database:
        facts = await checker.read(database, at.ground.redis, at.directory, at.epochs.seen)
        report.wrong += violations(facts)
        try:
            await read_models.equal_the_fold(database, facts.events)
        except AssertionError as error:
            report.wrong.append(f"I13 projection-equals-fold: {error}")
    report.wrong += _unexpected(at.load, facts)
    report.seen["races of cancel and end"] += sum(
        run.cancelled and run.ended != "ExecutionCancelled" for run in at.load.runs.values()
    )
    _count(facts, report.seen)
    report.figures["events"] = sum(map(len, facts.events.values()))


def _unexpected(load: Load, facts: checker.Facts) -> list[str]:
    """Every execution has ended as its shape says, after exactly the failures that were planned."""
    wrong = []
    executions = facts.executions
    for run in load.runs.values():
        events = executions.get(f"execution/{run.execution_id}", [])
        if run.ended not in run.ends:
            wrong.append(f"{run.execution_id} ({run.shape.name}): {run.ended or 'no end'}")
        if run.ended == "ExecutionCancelled" or not run.ended:
            continue
        failed: dict[str, int] = {}
        for event in events:
            if event["type"] == "TaskFailed":
                failed[event["data"]["task"]] = failed.get(event["data"]["task"], 0) + 1
        if failed != run.shape.failures:
            wrong.append(f"I18: {run.execution_id} ({run.shape.name}) failed {failed}")
        said = events[-1]["data"]
        undone = (said.get("compensated"), said.get("not_compensated"))
        if undone != (run.shape.undone or (None, None)):
            wrong.append(f"I9: {run.execution_id} ({run.shape.name}) has undone {undone}")
    return checker.say("ends", wrong)


async def _lagging(on: Ground) -> list[str]:
    """Which readers have not read which partition to its end."""
    async with on.database() as database:
        return [
            f"{consumer} is at {position} of {head} in partition {partition}"
            for consumer, partition, position, head in await database.fetch(LAGGING)
        ]


async def _bounded(on: Ground) -> list[str]:
    """I16: after quiet nothing stays in the streams of tasks or in the inbox.

    What a dead worker had read from the inbox is read by another one after a while: nobody was told
    that it counts, so it is no part of the convergence.
    """
    deadline = monotonic() + DRAIN_S
    while wrong := [f"{key} still has {left} entries" async for key, left in _left(on)]:
        if monotonic() > deadline:
            break
        await asyncio.sleep(LOOK_S)
    return checker.say("I16 bounded", wrong)


async def _left(on: Ground) -> AsyncIterator[tuple[str, int]]:
    # What was asked of a role that nobody serves stays until somebody does, though nobody waits.
    keys = [key async for key in on.redis.scan_iter("tasks:*") if b"/nobody" not in key]
    for key in [*keys, b"commands"]:
        if await on.redis.type(key) == b"stream" and (left := await on.redis.xlen(key)):
            yield key.decode(), left


def _count(facts: checker.Facts, seen: Seen) -> None:
    """What the log itself has seen."""
    for events in facts.events.values():
        times = [datetime.fromisoformat(event["time"]) for event in events]
        seen["clocks that went back"] += sum(
            (before - after).total_seconds() > BACK_S for before, after in pairwise(times)
        )
        for event in events:
            seen[LOGGED.get(event["type"], "other events")] += 1
            if event["type"] == checker.REFUSED:
                seen[REFUSALS.get(event["data"].get("code"), "other refusals")] += 1
    seen["take-overs"] += len(facts.epochs) - facts.partitions
    seen["dead letters kept"] += len(facts.letters)
