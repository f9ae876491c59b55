"""What tests of allocation share: an engine that looks often, flows, and what came of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from processors import commands
from processors.agents import Assignment
from processors.settings import Addresses
from tests.system.engine import Engine, engine

LOOK_S = 0.1


@asynccontextmanager
async def watching(addresses: Addresses, **judged: float) -> AsyncIterator[Engine]:
    """An engine that looks at its agents more often than usual."""
    async with engine(addresses) as running:
        watch = running.managers.watch
        assert watch is not None
        watch.look_s = LOOK_S
        for name, seconds in judged.items():
            setattr(watch.directory, name, seconds)
        yield running


def flow(tasks: int, allocation: str, **more: Any) -> dict[str, Any]:
    """Tasks that wait for nothing, to be given out by a policy."""
    return {
        "name": f"flow-{allocation}",
        "version": "1",
        "agents": {"worker": more.pop("role", {})},
        "tasks": [{"task_id": f"t{n}", "agent_role": "worker"} for n in range(tasks)],
        "coordination": {"allocation": allocation, **more.pop("coordination", {})},
        **more,
    }


async def start(running: Engine, document: dict[str, Any]) -> str:
    """Start one execution; returns its id."""
    create = commands.create_workflow(definition=document)
    await running.client.call(create)
    began = commands.start_execution(create.root)
    await running.client.call(began)
    return began.root


async def doers(running: Engine, execution: str) -> Counter[str]:
    """Which agents have completed how many tasks."""
    rows = await running.pool.fetch(
        "SELECT message -> 'data' ->> 'agent' FROM events"
        " WHERE subject = $1 AND type = 'TaskCompleted'",
        f"execution/{execution}",
    )
    return Counter(row[0] for row in rows)


async def agent_row(running: Engine, agent: str) -> dict[str, Any]:
    """The agent's row in the read model."""
    row = await running.pool.fetchrow("SELECT * FROM agents WHERE agent_id = $1", agent)
    return dict(row) if row is not None else {}


async def happened(running: Engine, subject: str) -> list[str]:
    """The types of what has happened to an aggregate."""
    rows = await running.pool.fetch(
        "SELECT type FROM events WHERE subject = $1 ORDER BY partition, position", subject
    )
    return [row[0] for row in rows]


async def work(_: Assignment) -> str:
    await asyncio.sleep(0.01)
    return "done"


async def attempts(running: Engine, execution: str) -> Counter[tuple[str, int, str]]:
    """What happened to the execution's tasks: type, attempt, agent."""
    rows = await running.pool.fetch(
        "SELECT type, (message -> 'data' ->> 'attempt')::int, message -> 'data' ->> 'agent'"
        " FROM events WHERE subject = $1 AND type LIKE 'Task%'",
        f"execution/{execution}",
    )
    return Counter(tuple(row) for row in rows)
