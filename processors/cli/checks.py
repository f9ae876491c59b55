"""Whether the read models say what a fold of the log says."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from processors.cli import sql
from processors.cli.progress import Run

if TYPE_CHECKING:
    from streams.logs.postgres import PostgresLog

CAUGHT_UP_S = 10.0  # a projector is milliseconds behind, or not at work
POLL_S = 0.1
SHOWN = 10


async def differences(log: PostgresLog, folded: dict[str, Any]) -> list[str]:
    """What the tables `executions` and `tasks` say otherwise; a projector may first catch up."""
    deadline = time.monotonic() + CAUGHT_UP_S
    while True:
        found = await _compare(log, folded)
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(POLL_S)


async def _compare(log: PostgresLog, folded: dict[str, Any]) -> list[str]:
    rows = await log.pool.fetch(sql.RUNS, [folded["execution_id"]])
    if not rows:
        return ["the table executions has no such row"]
    run = Run(*rows[0])
    counts = folded["counts"]
    pairs = {
        "status": (folded["status"], run.status),
        "phase": (str(folded["phase"]), run.phase),
        "tasks": (len(folded["tasks"]), run.tasks),
        "completed": (counts.get("completed", 0), run.completed),
        "running": (counts.get("running", 0), run.running),
        "scheduled": (counts.get("scheduled", 0), run.waiting),
        "failed": (counts.get("failed", 0), run.failed),
    }
    found = [
        f"{name} is {here} by the log, {there} in the table executions"
        for name, (here, there) in pairs.items()
        if here != there
    ]
    states = await log.pool.fetch(sql.TASK_STATES, folded["execution_id"])
    stored = {row[0]: tuple(row[1:]) for row in states}
    for task in folded["tasks"]:
        here = (task["status"], task["attempt"], task["agent"])
        there = stored.get(task["task_id"], ("pending", 0, None))
        if here != there:
            found.append(f"{task['task_id']} is {here} by the log, {there} in the table tasks")
    return found[:SHOWN]
